"""The name `uamqp`, for packages that ask for it: the modules are those of uamqp_cffi, the same objects."""

from uamqp_cffi import alias

alias.replace(__name__)
