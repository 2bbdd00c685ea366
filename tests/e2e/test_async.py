"""verl's asynchronous trainer on the same engines: relayed groups, killed in the middle, and resumed."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from relay_verl.pages.collect import read_responses
from tests.helpers.cluster_training import read_log, wait_for_steps
from tests.helpers.training import NUM_QUERIES, NUM_SAMPLES, command, read_metrics, read_rollouts, start

pytestmark = [pytest.mark.e2e, pytest.mark.slow, pytest.mark.timeout(2400)]

SAVE_FREQ = 2
KILLED_AFTER = 3
NUM_STEPS = 4
ASYNC = [
    "+relay=colocate_async",
    f"trainer.save_freq={SAVE_FREQ}",
    "trainer.test_freq=-1",
    f"trainer.total_training_steps={NUM_STEPS}",
    f"relay.num_logged_groups={NUM_QUERIES}",
]


@dataclass(frozen=True)
class Resumed:
    """What two runs of the same command left, of which the first was killed with SIGKILL."""

    folder: Path
    log: str
    """Of the second run."""
    metrics: list[dict[str, Any]]
    """Of both."""


@pytest.fixture(scope="module")
def resumed(pair: Path, tmp_path_factory: pytest.TempPathFactory) -> Resumed:
    folder = tmp_path_factory.mktemp("async")
    driver = start(command(folder, *ASYNC), folder, "first.log")
    try:
        wait_for_steps(driver, folder, KILLED_AFTER, "first.log")
    finally:
        driver.kill()
        driver.wait(timeout=120)
    driver = start(command(folder, *ASYNC), folder, "second.log")
    try:
        assert driver.wait(timeout=1200) == 0, read_log(folder, "second.log")
    finally:
        driver.kill()
    return Resumed(folder, (folder / "second.log").read_text(errors="replace"), read_metrics(folder))


def test_it_continues_at_the_last_checkpoint(resumed: Resumed) -> None:
    steps = [step["training/global_step"] for step in resumed.metrics]
    assert steps == [*range(1, KILLED_AFTER + 1), *range(SAVE_FREQ + 1, NUM_STEPS + 1)]
    assert (resumed.folder / "checkpoints" / "latest_checkpointed_iteration.txt").read_text() == str(NUM_STEPS)


def test_groups_are_whole_and_their_calls_are_served(resumed: Resumed) -> None:
    for step in resumed.metrics:
        assert step["relay/status/completed"] == NUM_QUERIES * NUM_SAMPLES
        assert step["relay/groups/replaced"] == 0
        assert step["relay/teacher_failures"] == 0
    assert sum(step["relay/calls/served"] for step in resumed.metrics) > 0
    rows = read_rollouts(resumed.folder, NUM_STEPS)
    assert len({row["uid"] for row in rows}) == len(rows) == NUM_QUERIES * NUM_SAMPLES


def test_staleness_is_that_of_the_segments(resumed: Resumed) -> None:
    """The first batch is of the first weights; some of a later one was begun with weights that were replaced since."""
    spans = [step["training/off_policy/trajectory_spans/mean"] for step in resumed.metrics]
    oldest = [step["training/off_policy/trajectory_staleness_worst/mean"] for step in resumed.metrics]
    assert (spans[0], oldest[0]) == (1, 0)
    assert all(span >= 1 for span in spans)
    assert max(oldest) > 0


def test_responses_that_two_versions_wrote_are_whole(resumed: Resumed) -> None:
    """The segments of each logged response are its text, whoever interrupted it."""
    records = read_responses([resumed.folder / "checkpoints" / "samples"])
    assert records
    for record in records:
        assert record.num_tokens == sum(segment["num_tokens"] for segment in record.segments)
        assert all(
            one["source"] != other["source"] for one, other in zip(record.segments, record.segments[1:], strict=False)
        )
