"""The collector looks seldom while trajectories wait, and as before afterwards."""

import gc

from relay_verl.garbage import THRESHOLDS, collecting_seldom


def test_the_collector_is_as_before_afterwards() -> None:
    before = gc.get_threshold(), gc.get_freeze_count()
    with collecting_seldom():
        assert gc.get_threshold() == THRESHOLDS
        assert gc.get_freeze_count() > before[1]
        collections = gc.get_stats()[2]["collections"]
        waiting = [[index] for index in range(200_000)]
        assert gc.get_stats()[2]["collections"] == collections
        assert len(waiting) == 200_000
    assert (gc.get_threshold(), gc.get_freeze_count()) == (before[0], 0)
