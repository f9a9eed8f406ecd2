"""What to say of keyword arguments that nobody knows.

Type checkers find them (`_typing.Nothing`); this is for who runs none.
"""

from __future__ import annotations

from collections.abc import Iterable


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
