"""What a step's groups say about relaying, as metrics for verl's logger. Pure.

One `SampleStats` a sample travels with its group; `relay_metrics` sums up the groups a step trains on.

Invariant: `SampleStats.is_whole` is the only definition of what is trained on; a sample is a row of the batch and
counts in a mean if and only if it is whole.
"""

from __future__ import annotations

import itertools
from collections import Counter
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field, replace

import numpy as np

from relay_verl.prices.price import PriceList
from relay_verl.prices.usage import usage_of
from relay_verl.rewards import Scenario, find_scenario
from relay_verl.types import CallOutcome, CallRecord, RelayStatus, RelayTrajectory, is_whole, rho

MAX_FAILURE_CHARS = 400
"""Longest cause of a failure that travels with a sample."""
_ASKED = {CallOutcome.SERVED: "calls", CallOutcome.FAILED: "failures"}


@dataclass(frozen=True)
class SampleStats:
    """One sample of a group."""

    status: str
    """`RelayStatus` of its trajectory."""
    is_correct: bool = False
    """Whether its answer is right."""
    reward: float = 0.0
    """What it earned."""
    called: bool = False
    """Whether it called the teacher (`relay_verl.types.asked_teacher`)."""
    num_tokens: int = 0
    """Tokens of its response."""
    num_calls: int = 0
    """Served calls."""
    num_requested_tokens: int = 0
    """Tokens asked for by served calls."""
    num_teacher_tokens: int = 0
    """Tokens the teacher delivered."""
    outcomes: dict[str, int] = field(default_factory=dict)
    """Commands by `CallOutcome`."""
    latencies_s: list[float] = field(default_factory=list)
    """Seconds of each served call."""
    num_reread: int = 0
    """Tokens that the teacher was given at later calls of the trajectory, whose beginning it had read before."""
    num_cached: int = 0
    """Those of them that its prefix cache held."""
    num_reusable: int = 0
    """Tokens of the whole cache blocks that the calls before had left at later calls of the trajectory ..."""
    num_reused: int = 0
    """... and those of them that were held still."""
    grading: str = ""
    """How its grading ended."""
    teachers: dict[str, int] = field(default_factory=dict)
    """'NAME/calls' and 'NAME/failures': served and failed calls by teacher, where there are several."""
    failure: str = ""
    """Why its last failed call failed, or why it was not scored."""
    cost: float | None = None
    """Money that it took, in `relay.prices.currency`; None without prices."""
    cost_share: float | None = None
    """The same over what the teacher alone would cost (`relay_verl.prices`); None without prices."""
    num_scored: int = 0
    """Tokens that the teacher scored for the distillation."""
    num_read: int = 0
    """Tokens that it read for them."""
    score_s: float = 0.0
    """Seconds that this took."""
    is_unscored: bool = False
    """Whether it is dropped because the teacher was to score it and failed."""
    is_sole_survivor: bool = False
    """Whether it is dropped because all other samples of its group failed; see `drop_sole_survivor`."""

    @classmethod
    def of(
        cls,
        trajectory: RelayTrajectory,
        *,
        is_correct: bool,
        reward: float = 0.0,
        grading: str = "",
        prices: PriceList | None = None,
    ) -> SampleStats:
        """The stats of a trajectory; `prices` give its cost."""
        cost, cost_share = _costs(trajectory, prices)
        served = [call for call in trajectory.calls if call.outcome is CallOutcome.SERVED]
        later = [call for call in served[1:] if call.num_cached is not None]
        blocks = [_reused(*calls) for calls in itertools.pairwise(served)]
        return cls(
            status=str(trajectory.status),
            is_correct=is_correct,
            reward=reward,
            called=trajectory.has_called,
            num_tokens=trajectory.num_tokens,
            num_calls=trajectory.num_calls,
            num_requested_tokens=trajectory.num_requested_tokens,
            num_teacher_tokens=trajectory.num_teacher_tokens,
            outcomes=dict(Counter(str(call.outcome) for call in trajectory.calls)),
            latencies_s=[call.latency_s for call in served],
            num_reread=sum(call.num_context for call in later),
            num_cached=sum(call.num_cached or 0 for call in later),
            num_reusable=sum(reusable for reusable, _ in blocks),
            num_reused=sum(reused for _, reused in blocks),
            grading=grading,
            teachers=dict(
                Counter(
                    f"{call.teacher}/{_ASKED[call.outcome]}" for call in trajectory.calls if call.teacher is not None
                )
            ),
            failure=_last_failure(trajectory),
            cost=cost,
            cost_share=cost_share,
        )

    @property
    def is_whole(self) -> bool:
        """Whether it is trained on: whole in itself, and not the only one left of its group."""
        return is_whole(self.status, self.num_tokens) and not self.is_sole_survivor

    @property
    def call_ratio(self) -> float:
        """See `relay_verl.types.rho`."""
        return rho(self.num_teacher_tokens, self.num_tokens)

    def to_dict(self) -> dict[str, object]:
        """Plain data, for a tag."""
        return asdict(self)


def _costs(trajectory: RelayTrajectory, prices: PriceList | None) -> tuple[float | None, float | None]:
    """Money that a trajectory took, and the same over what the teacher alone would cost."""
    if prices is None:
        return None, None
    used = usage_of(trajectory)
    return prices.cost(*used), prices.cost_share(*used, len(trajectory.prompt_ids), trajectory.num_tokens)


def _reused(previous: CallRecord, call: CallRecord) -> tuple[int, int]:
    """Tokens in the whole cache blocks that `previous` left for `call`, and those of them that the cache held; zeros
    where the engine does not tell.

    The context of a call begins with that of the one before and what the teacher answered to it. Of these tokens the
    engine has read all but the last one, which it only wrote.

    >>> before = CallRecord(CallOutcome.SERVED, num_context=30, num_delivered=10)
    >>> _reused(before, CallRecord(CallOutcome.SERVED, num_context=50, num_cached=48, cache_block=16))
    (32, 32)
    """
    if call.num_cached is None or call.cache_block is None:
        return 0, 0
    num_read = previous.num_context + previous.num_delivered - 1
    reusable = num_read // call.cache_block * call.cache_block
    return reusable, min(call.num_cached, reusable)


def _last_failure(trajectory: RelayTrajectory) -> str:
    """Why the last failed call failed, with the teacher's name where there are several; empty if none failed."""
    failed = [call for call in trajectory.calls if call.outcome is CallOutcome.FAILED]
    if not failed:
        return ""
    name = "" if failed[-1].teacher is None else f"{failed[-1].teacher}: "
    return f"{name}{' '.join(failed[-1].error.split()):.{MAX_FAILURE_CHARS}}"


def drop_unscored(stats: SampleStats, error: Exception) -> SampleStats:
    """The stats of a sample that the teacher was to score and did not: the distillation's loss has nothing to say of
    it."""
    failure = f"{' '.join(str(error).split()):.{MAX_FAILURE_CHARS}}"
    return replace(stats, status=str(RelayStatus.TEACHER_FAILED), is_unscored=True, failure=failure)


def drop_sole_survivor(group: Sequence[SampleStats]) -> list[SampleStats]:
    """The stats of a training group; the only whole sample of several is marked as dropped.

    Alone it has nothing to be compared with: verl's GRPO would take its raw reward as its advantage.

    >>> whole, failed = SampleStats("completed", num_tokens=3), SampleStats("student_failed")
    >>> [sample.is_whole for sample in drop_sole_survivor([whole, failed])]
    [False, False]
    >>> [sample.is_whole for sample in drop_sole_survivor([whole])]
    [True]
    """
    is_single = len(group) > 1 and sum(sample.is_whole for sample in group) == 1
    return [replace(sample, is_sole_survivor=True) if is_single and sample.is_whole else sample for sample in group]


def relay_metrics(groups: Sequence[Sequence[SampleStats]]) -> dict[str, float]:
    """Metrics of the groups of one step; of a sample that is not trained on only status, calls and latencies count.

    call_rate: share of responses that called. call_ratio: mean of rho over responses. num_calls, requested_tokens and
    delivered_tokens: means a response. cost: mean money a response, in the currency of relay.prices; cost_share: mean
    of that over what the teacher alone would cost; both where prices are given. scenario/...: share of groups.
    reward/...: mean reward in those groups.
    teacher_latency_s: over served calls, in seconds. teacher_wait_s: mean seconds a response. teacher_cached: share of
    the prompts of a trajectory's later calls that the teacher's prefix cache held, where its engine says so.
    scored_tokens and read_tokens: means a response, of the tokens that the teacher scored for the distillation and of
    those that it read for that; score_latency_s: of its answers, in seconds; all where the run distils.
    teacher_cached_blocks: share of the whole cache blocks that earlier calls of the trajectory had left there.
    teacher_failures, calls/..., status/...: counts.
    teacher/NAME/calls and failures: counts by teacher, where there are several. groups/dropped_single: groups that are
    not trained on because one sample survived.
    """
    samples = [sample for group in groups for sample in group]
    whole = [sample for sample in samples if sample.is_whole]
    outcomes: Counter[str] = Counter()
    for sample in samples:
        outcomes.update(sample.outcomes)
    metrics = {f"relay/status/{status}": float(sum(s.status == status for s in samples)) for status in RelayStatus}
    metrics |= {f"relay/calls/{outcome}": float(outcomes[outcome]) for outcome in CallOutcome}
    by_teacher: Counter[str] = Counter()
    for sample in samples:
        by_teacher.update(sample.teachers)
    metrics |= {f"relay/teacher/{name}": float(count) for name, count in by_teacher.items()}
    metrics["relay/teacher_failures"] = float(outcomes[CallOutcome.FAILED])
    metrics["relay/groups/dropped_single"] = float(sum(sample.is_sole_survivor for sample in samples))
    for status in ("timeout", "error", "no_answer"):
        metrics[f"relay/grading/{status}"] = float(sum(sample.grading == status for sample in whole))
    latencies = [latency for sample in samples for latency in sample.latencies_s]
    if latencies:
        metrics["relay/teacher_latency_s/p50"] = float(np.percentile(latencies, 50))
        metrics["relay/teacher_latency_s/p95"] = float(np.percentile(latencies, 95))
    if num_reread := sum(sample.num_reread for sample in samples):
        metrics["relay/teacher_cached"] = sum(sample.num_cached for sample in samples) / num_reread
    if num_reusable := sum(sample.num_reusable for sample in samples):
        metrics["relay/teacher_cached_blocks"] = sum(sample.num_reused for sample in samples) / num_reusable
    if whole:
        metrics |= {
            "relay/teacher_wait_s": _mean([sum(s.latencies_s) for s in whole]),
            "relay/accuracy": _mean([s.is_correct for s in whole]),
            "relay/call_rate": _mean([s.called for s in whole]),
            "relay/call_ratio": _mean([s.call_ratio for s in whole]),
            "relay/num_calls": _mean([s.num_calls for s in whole]),
            "relay/requested_tokens": _mean([s.num_requested_tokens for s in whole]),
            "relay/delivered_tokens": _mean([s.num_teacher_tokens for s in whole]),
            "relay/malformed_calls": _mean([s.outcomes.get(CallOutcome.MALFORMED, 0) for s in whole]),
        }
    if latencies := [s.score_s for s in whole if s.num_read]:
        metrics |= {
            "relay/scored_tokens": _mean([s.num_scored for s in whole]),
            "relay/read_tokens": _mean([s.num_read for s in whole]),
            "relay/score_latency_s/p50": float(np.percentile(latencies, 50)),
            "relay/score_latency_s/p95": float(np.percentile(latencies, 95)),
        }
    priced = [(s.cost, s.cost_share) for s in whole if s.cost is not None and s.cost_share is not None]
    if priced:
        costs, shares = zip(*priced, strict=True)
        metrics |= {"relay/cost": _mean(costs), "relay/cost_share": _mean(shares)}
    return metrics | _by_scenario(groups)


def _by_scenario(groups: Sequence[Sequence[SampleStats]]) -> dict[str, float]:
    rewards: dict[str, list[float]] = {scenario: [] for scenario in Scenario}
    num_groups: Counter[str] = Counter()
    for group in groups:
        whole = [sample for sample in group if sample.is_whole]
        if whole:
            scenario = find_scenario([s.is_correct for s in whole], [s.called for s in whole])
            num_groups[scenario] += 1
            rewards[scenario] += [s.reward for s in whole]
    total = num_groups.total()
    shares = {f"relay/scenario/{name}": num_groups[name] / total for name in Scenario if total}
    return shares | {f"relay/reward/{name}": _mean(values) for name, values in rewards.items() if values}


def _mean(values: Sequence[float]) -> float:
    return float(np.mean(np.asarray(values, dtype=float)))
