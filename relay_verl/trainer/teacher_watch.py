"""A training whose teacher answers nothing is seen: a warning a step, and an end with a checkpoint.

The trainer's replay buffer counts the calls of each step (`relay_verl.trainer.replay_buffer`); this module decides, and
lets a run end where verl can save it: behind the step in which the share of failed calls rose above
`relay.max_failed_call_share`, and before the first step if the validation before training shows it.

Invariant: a step with fewer than `MIN_COUNT` calls decides together with the steps before it, and none counts twice.
"""

from __future__ import annotations

import functools
import sys
from collections.abc import Iterable, Mapping
from typing import Any

from relay_verl.engines.failure_share import FailureShare
from relay_verl.errors import TeacherError
from relay_verl.trainer.metrics import SampleStats
from relay_verl.types import CallOutcome

HOW_TO_CONTINUE = "relay.max_failed_call_share=1 never ends a run"
"""What a user can do who wants to train without the teacher."""


class TeacherWatch:
    """Counts a run's calls, step by step, and what its teacher scores.

    Args:
        limit: `relay.max_failed_call_share`.
    """

    def __init__(self, limit: float):
        self._limit = limit
        self._undecided = self._new()  # since the last decision
        self._unsaid = self._new()  # since the last warning

    def _new(self) -> FailureShare:
        return FailureShare(self._limit, "calls to the teacher")

    def count(self, samples: Iterable[SampleStats]) -> None:
        """Count the calls of these samples."""
        for sample in samples:
            outcomes: Mapping[str, int] = sample.outcomes
            served, failed = outcomes.get(CallOutcome.SERVED, 0), outcomes.get(CallOutcome.FAILED, 0)
            # where the run distils, each response is a request, too
            served, failed = served + (sample.num_read > 0), failed + sample.is_unscored
            self._undecided.add(served, failed, sample.failure)
            self._unsaid.add(served, failed, sample.failure)

    def warn(self, when: str) -> None:
        """Say how many calls failed since the last time, if any; `when` is such as 'step 5'."""
        if self._unsaid.num_failed:
            print(f"relay_verl: warning: {when}: {self._unsaid}", file=sys.stderr, flush=True)
        self._unsaid = self._new()

    def decide(self) -> FailureShare | None:
        """The counts if too many calls failed since the last decision; None if not, or if there are too few to tell."""
        if not self._undecided.is_decided:
            return None
        decided, self._undecided = self._undecided, self._new()
        return decided if decided.is_over else None


def install(module: Any) -> None:
    """Let verl's trainer end behind a step whose replay buffer says so; a second call does nothing.

    Remove this when verl lets a replay buffer or a callback end a run with a checkpoint.
    """
    original = module.PPOTrainer.step
    if getattr(original, "ends_without_teacher", False):
        return

    @functools.wraps(original)
    def step(self: Any, metrics: dict[str, Any], *args: Any, **kwargs: Any) -> Any:
        result = original(self, metrics, *args, **kwargs)
        reason = getattr(self.replay_buffer, "end_reason", None)
        if reason is not None:
            end(self, metrics, reason)
        return result

    step.ends_without_teacher = True  # type: ignore[attr-defined]
    module.PPOTrainer.step = step


def end(trainer: Any, metrics: Mapping[str, Any], reason: str) -> None:
    """Log the step and save it as verl does at this place, and raise.

    Raises:
        TeacherError: always; says why, and what is saved.
    """
    trainer.logger.log(
        data={name: value for name, value in metrics.items() if isinstance(value, (int, float))},
        step=trainer.global_steps,
    )
    save_freq = trainer.config.trainer.save_freq
    if save_freq is None or save_freq <= 0:
        saved = f"nothing is saved, as trainer.save_freq={save_freq}"
    else:
        try:
            trainer._save_checkpoint()
            saved = f"step {trainer.global_steps} is saved: the same command continues from there"
        except Exception as error:
            saved = f"step {trainer.global_steps} could not be saved: {error}"
    raise TeacherError(f"{reason}; {saved}; {HOW_TO_CONTINUE}")
