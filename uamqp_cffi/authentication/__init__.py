"""Ways to authenticate to the peer."""

from .common import AMQPAuth, SASLAnonymous, SASLExternal, SASLPlain

__all__ = ["AMQPAuth", "SASLAnonymous", "SASLExternal", "SASLPlain"]
