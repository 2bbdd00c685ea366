"""The queries of a job: pairs of a unique key and a row, which can be read from the start again."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass

from relay_verl.jobs.formats import Row


@dataclass(frozen=True)
class Queries:
    """Queries that are too many to keep: each loop over them reads them anew.

    >>> queries = Queries(lambda: iter([("a", {"x": 1}), ("b", {"x": 2})]))
    >>> [key for key, _ in queries], [key for key, _ in queries]
    (['a', 'b'], ['a', 'b'])
    """

    read: Callable[[], Iterator[tuple[str, Row]]]
    """Gives all of them, always in the same order."""

    def __iter__(self) -> Iterator[tuple[str, Row]]:
        return self.read()
