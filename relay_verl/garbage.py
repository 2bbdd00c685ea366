"""Python's collector of garbage where thousands of trajectories wait at the same time.

It looks through all objects again and again while their number grows, and nothing of a trajectory that waits is
garbage: with thousands of them it takes as much time as the loop itself. Objects that form no cycle, as nearly all do,
are freed at once by their count of references, whatever the collector does.
"""

from __future__ import annotations

import gc
from collections.abc import Iterator
from contextlib import contextmanager

THRESHOLDS = (100_000, 20, 20)
"""New objects until the youngest generation is looked through, and how often that is until the next one is."""


def collect_seldom() -> None:
    """From now on leave what there is alone, and look through new objects seldom. For a process that only samples."""
    gc.collect()
    gc.freeze()
    gc.set_threshold(*THRESHOLDS)


@contextmanager
def collecting_seldom() -> Iterator[None]:
    """The same for the time of a block, in a process that has other work later."""
    before = gc.get_threshold()
    collect_seldom()
    try:
        yield
    finally:
        gc.set_threshold(*before)
        gc.unfreeze()
