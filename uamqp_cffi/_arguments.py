"""What to say of arguments that are not what they must be: what was given, what is wanted, how to write it. No value of a
user's is quoted but numbers, since any other may be a password or a body.

Type checkers find most of them (keywords that nobody knows: `_typing.Nothing`); this is for who runs none.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from typing import Any


def unknown(of: str, given: Iterable[str], known: Iterable[str]) -> str:
    """The text of an error: `of` was given arguments that it does not know, and which of those it does know was meant."""
    import difflib

    candidates = sorted(known)
    parts = []
    for name in sorted(given):
        near = difflib.get_close_matches(name, candidates, 1)
        parts.append(f"{name!r}{f' (did you mean {near[0]!r}?)' if near else ''}")
    return f"{of} does not know the argument {', '.join(parts)}"


def keywords_of(kind: type) -> set[str]:
    """The arguments that the constructor of this class, or of one that it is made of, takes by name."""
    import inspect

    found: set[str] = set()
    for one in kind.__mro__:
        made = one.__dict__.get("__init__")
        if inspect.isfunction(made):
            parameters = list(inspect.signature(made).parameters.values())[1:]
            found.update(p.name for p in parameters if p.kind in (p.POSITIONAL_OR_KEYWORD, p.KEYWORD_ONLY))
    return found


def what(value: Any) -> str:
    """What was given, for people."""
    if value is None or isinstance(value, (bool, int, float)):
        return repr(value)
    if isinstance(value, type):
        return f"the class {value.__name__} itself"
    name = type(value).__name__
    if name == "bytes":
        return name
    return f"an {name}" if name[:1].lower() in "aeiou" else f"a {name}"


def wrong(name: str, value: Any, wanted: str, how: str = "") -> TypeError:
    """The error for an argument of a wrong type."""
    return TypeError(f"{name} must be {wanted}, not {what(value)}{f': write {how}' if how else ''}")


def looks_like(name: str, value: Any, attributes: Iterable[str], wanted: str, how: str) -> None:
    """Raises TypeError unless `value` is None, or an object with these attributes: of the class that is meant, or one that
    stands for it."""
    if value is not None and (isinstance(value, type) or not all(hasattr(value, one) for one in attributes)):
        raise wrong(name, value, wanted, how)


def is_auth(value: Any) -> None:
    """Raises TypeError unless this is None, an object of `authentication`, or one that stands for it."""
    how = "auth=SASLPlain(hostname, username, password), or user and password into the URL"
    looks_like("auth", value, ("hostname",), "an object of uamqp_cffi.authentication", how)


def is_policy(value: Any) -> None:
    """Raises TypeError unless this is None, an ErrorPolicy, or one that stands for it."""
    methods = ("on_message_error", "on_link_error", "on_connection_error", "max_retries")
    looks_like("error_policy", value, methods, "an ErrorPolicy", "error_policy=ErrorPolicy(max_retries=3)")


def is_context(value: Any) -> None:
    """Raises TypeError unless this is None, an SSLContext, or one that stands for it."""
    looks_like("ssl_context", value, ("wrap_bio",), "an ssl.SSLContext", "ssl_context=ssl.create_default_context()")


def is_callable(name: str, value: Any, how: str) -> None:
    """Raises TypeError unless `value` is None or can be called."""
    if value is not None and not callable(value):
        raise wrong(name, value, "a function", how)


def are_numbers(**given: Any) -> None:
    """Raises TypeError for the first that is neither None nor a number."""
    for name, value in given.items():
        if value is not None and not isinstance(value, (int, float)) and not hasattr(value, "__index__"):
            raise wrong(name, value, "a number")


def are_mappings(**given: Any) -> None:
    """Raises TypeError for the first that is neither None nor a dict, or another mapping."""
    for name, value in given.items():
        if value is not None and not isinstance(value, Mapping):
            raise wrong(name, value, "a dict")


def sendable(where: str, message: Any) -> Callable[[], Iterable[Any]]:
    """The `gather` of a message. Raises TypeError for what is no message."""
    gather: Callable[[], Iterable[Any]] | None = getattr(message, "gather", None)
    if gather is None or isinstance(message, type):
        how = "Message(...) around it"
        if isinstance(message, (list, tuple, set, frozenset)):
            how = f"{where}(*messages)" if where == "queue_message" else "BatchMessage(messages), or one call for each"
        elif message is None or isinstance(message, type):
            how = "Message(body)"
        raise wrong(f"what {where} is given", message, "a Message or BatchMessage", how)
    return gather


def not_pickled(one: Any) -> TypeError:
    """The error of who pickles or copies something that has a connection."""
    return TypeError(
        f"a {type(one).__name__} has a connection and cannot be pickled or copied: make one where it is needed, in each process "
        "a new one. Messages that are to be sent can be pickled."
    )
