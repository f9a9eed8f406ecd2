"""Delivery-ids: serial numbers of 32 bits (§2.8.10)."""

from __future__ import annotations

from collections.abc import Iterable, Iterator

_SERIAL = (1 << 32) - 1


def ranges(numbers: Iterable[int]) -> Iterator[tuple[int, int]]:
    """Delivery-ids (serial numbers of 32 bits, §2.8.10) as (first, last) of adjacent ones, in the order given.

    >>> list(ranges([7, 8, 9, 11, 4294967295, 0]))
    [(7, 9), (11, 11), (4294967295, 0)]
    """
    first = last = -1
    for number in numbers:
        if first < 0:
            first = last = number
        elif number == (last + 1) & _SERIAL:
            last = number
        else:
            yield first, last
            first = last = number
    if first >= 0:
        yield first, last


def numbers_of(first: int, last: int) -> list[int]:
    """The delivery-ids first..last."""
    return [(first + i) & _SERIAL for i in range(span(first, last))]


def span(first: int, last: int) -> int:
    """How many delivery-ids first..last are."""
    return ((last - first) & _SERIAL) + 1
