"""On-policy distillation in verl's own trainer on CPU: the teacher that verl starts scores what the student wrote, and
answers its calls where the recipe has some."""

import math
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from tests.helpers.training import NUM_ROWS, command, read_metrics, read_rollouts, start

pytestmark = [pytest.mark.e2e, pytest.mark.slow, pytest.mark.timeout(2400)]

NUM_STEPS = 3
FAST = ["actor_rollout_ref.actor.optim.lr=1e-3", f"trainer.total_training_steps={NUM_STEPS}"]


@dataclass(frozen=True)
class Run:
    """What a training left."""

    folder: Path
    metrics: list[dict[str, Any]]


@pytest.fixture(scope="module", params=["opd_tiny", "relay_opd_tiny"])
def run(request: pytest.FixtureRequest, pair: Path, tmp_path_factory: pytest.TempPathFactory) -> Run:
    """A training of each recipe, from the student before the warm-up and from the one behind it."""
    folder = tmp_path_factory.mktemp(request.param)
    driver = start(command(folder, *FAST, recipe=request.param), folder, "train.log")
    try:
        assert driver.wait(timeout=1000) == 0, (folder / "train.log").read_text(errors="replace")[-5000:]
    finally:
        driver.kill()
    return Run(folder, read_metrics(folder))


def test_every_response_of_every_step_is_scored(run: Run) -> None:
    assert [step["training/global_step"] for step in run.metrics] == list(range(1, NUM_STEPS + 1))
    for number, step in enumerate(run.metrics, start=1):
        assert step["relay/status/completed"] == len(read_rollouts(run.folder, number)) == NUM_ROWS
        assert 0 < step["relay/scored_tokens"] < step["relay/read_tokens"], "the teacher reads the prompt, too"
        # Without calls that is all of the response; else neither commands nor the teacher's own tokens.
        length = step["response_length/mean"]
        own = length - step["relay/delivered_tokens"]
        assert step["relay/scored_tokens"] <= own + 1e-6
        if "relay_opd" not in run.folder.name:
            assert step["relay/scored_tokens"] == pytest.approx(length)


def test_the_loss_is_a_divergence_and_moves_the_student(run: Run) -> None:
    losses = [step["actor/distillation/loss"] for step in run.metrics]
    assert all(math.isfinite(loss) and loss > 0 for loss in losses)
    assert all(step["actor/grad_norm"] > 0 for step in run.metrics)


def test_one_teacher_does_both(run: Run) -> None:
    replicas = {
        name.split("/")[3] for step in run.metrics for name in step if name.startswith("relay/replica/teacher/")
    }
    assert replicas == {"0"}
    has_calls = "relay_opd" in run.folder.name
    assert (sum(step["relay/calls/served"] for step in run.metrics) > 0) == has_calls
    assert all(step["relay/teacher_failures"] == 0 for step in run.metrics)


def test_rewards_have_a_loss_of_their_own_where_the_recipe_has_calls(run: Run) -> None:
    has_policy_loss = "relay_opd" in run.folder.name
    assert all(("actor/pg_loss" in step) == has_policy_loss for step in run.metrics)
    assert all(("actor/kl_loss" in step) == has_policy_loss for step in run.metrics)
