"""What `relay-verl bench scale` simulates, as a YAML or JSON file: the speed of the engines, and the responses.

`assumed_h100.yaml` is an example. Each dataclass below is a group of keys of that file and each field a key; all are
required, so that a result depends on the file alone. Pure.
"""

from __future__ import annotations

import itertools
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Annotated, Any, NamedTuple

import numpy as np
import yaml
from pydantic import AfterValidator, Field, TypeAdapter, ValidationError

from relay_verl.config.values import STRICT, Count, NonNegative, Positive
from relay_verl.errors import UserError, first_line

ASSUMED = Path(__file__).parent / "assumed_h100.yaml"
"""The example: assumed values, not measured ones."""

Share = Annotated[float, Field(ge=0, le=1, allow_inf_nan=False)]


def _check_counts(points: tuple[tuple[int, float], ...]) -> tuple[tuple[int, float], ...]:
    counts = [count for count, _ in points]
    if any(later <= earlier for earlier, later in itertools.pairwise(counts)):
        raise ValueError(f"expected rising numbers of sequences, got {counts}")
    return points


Points = Annotated[tuple[tuple[Count, Positive], ...], Field(min_length=1), AfterValidator(_check_counts)]


@dataclass(frozen=True)
class EngineCurve:
    """How fast one replica of a model is."""

    __pydantic_config__ = STRICT

    decode: Points
    """Pairs of running sequences and the tokens a second that they decode together, by rising counts."""
    prefill_s_per_token: NonNegative
    """Seconds that a token of a prompt takes if the prefix cache does not have it."""
    cached_share: Share
    """Share of a later request's prompt that the cache has, at the replica that the trajectory asked before."""
    gpus_per_replica: Count
    """GPUs of a replica: its tensor parallel size."""

    def rates(self, most: int) -> list[float]:
        """Tokens a second of 0 to `most` running sequences together.

        Linear between the points. Below the first one each sequence has the speed that it has there; above the last one
        the sequences share what was measured there.
        """
        counts, rates = zip((0, 0.0), *self.decode, strict=True)
        return np.interp(np.arange(most + 1), counts, rates).tolist()


@dataclass(frozen=True)
class Lengths:
    """A log-normal law of token counts, which are at least 1."""

    __pydantic_config__ = STRICT

    median: Positive
    """Tokens that half of them have."""
    sigma: NonNegative
    """Standard deviation of the logarithm: 0 makes all lengths equal, at 1 one in six is over 2.7 times the median."""
    max: Count
    """Most tokens; longer draws are cut here."""

    def draw(self, rng: np.random.Generator, size: int) -> np.ndarray:
        """Token counts, [size]."""
        drawn = self.median * np.exp(self.sigma * rng.standard_normal(size))
        return np.clip(np.rint(drawn), 1, self.max).astype(int)


class Trajectory(NamedTuple):
    """A response before it is written."""

    name: str
    """What its replicas are chosen by."""
    turns: tuple[int, ...]
    """Tokens of each turn: the student's, the teacher's, and so on; the student has the first and the last one."""


@dataclass(frozen=True)
class Workload:
    """The responses of a batch."""

    __pydantic_config__ = STRICT

    responses_per_gpu: Count
    """Responses of a batch for each GPU, students' and teachers' together, so that the batch grows with the cluster."""
    num_workers: Count
    """Processes that route requests, each by what it has under way itself: verl's `rollout.agent.num_workers`."""
    prompt_tokens: Count
    """Tokens of a question."""
    response_tokens: Lengths
    """Tokens of a response, the teacher's included."""
    call_share: Share
    """Share of responses that call."""
    calls_per_response: Annotated[float, Field(ge=1, allow_inf_nan=False)]
    """Calls of a response that calls, on average: one, and a Poisson number more."""
    max_calls: Count
    """Most calls of a response; more are left out of that number."""
    tokens_per_call: Lengths
    """Tokens that a call delivers, n."""

    def draw(self, num: int, seed: int) -> list[Trajectory]:
        """The responses of a batch, [num]; calls stand at random places, with student tokens before and after each."""
        rng = np.random.default_rng(seed)
        lengths = self.response_tokens.draw(rng, num)
        num_calls = np.minimum(1 + rng.poisson(self.calls_per_response - 1, num), self.max_calls)
        num_calls[rng.random(num) >= self.call_share] = 0
        num_calls = np.minimum(num_calls, (lengths - 1) // 2)  # each turn has a token, and the student the last turn
        ends = np.cumsum(num_calls)
        asked, places = self.tokens_per_call.draw(rng, ends[-1]).tolist(), rng.random(ends[-1]).tolist()
        return [
            Trajectory(f"{seed}-{index}", _cut(length, asked[end - calls : end], places[end - calls : end]))
            for index, (length, calls, end) in enumerate(zip(lengths.tolist(), num_calls, ends, strict=True))
        ]


def _cut(length: int, asked: Sequence[int], places: Sequence[float]) -> tuple[int, ...]:
    """The turns of a response whose calls ask for so many tokens, at places from 0 to 1 among the student's own.

    >>> _cut(100, [20, 30], [0.5, 0.2])
    (10, 20, 16, 30, 24)

    A call delivers less than it asks for where the response is too short for it:

    >>> _cut(10, [20, 30], [0.5, 0.2])
    (1, 6, 1, 1, 1)
    """
    spare = length - 2 * len(asked) - 1  # beyond one token a turn
    turns = [0] * (2 * len(asked) + 1)
    for call, num_tokens in enumerate(asked):
        turns[2 * call + 1] = min(num_tokens, 1 + spare)
        spare -= turns[2 * call + 1] - 1
    cuts = [0, *(int(place * (spare + 1)) for place in sorted(places)), spare]
    turns[::2] = [1 + end - start for start, end in itertools.pairwise(cuts)]
    return tuple(turns)


@dataclass(frozen=True)
class Scenario:
    """Everything that a simulation depends on, but for the number of replicas."""

    __pydantic_config__ = STRICT

    origin: str
    """Where the numbers are from, in a few words; stands in every table and picture."""
    student: EngineCurve
    """The student's engine."""
    teacher: EngineCurve
    """The teacher's engine."""
    workload: Workload
    """The responses."""


def curve_of(
    points: Sequence[tuple[int, float]],
    *,
    prefill_s_per_token: float,
    cached_share: float = 0.0,
    gpus_per_replica: int = 1,
) -> EngineCurve:
    """An engine's curve from measurements.

    >>> curve_of([(1, 100.0), (9, 500.0)], prefill_s_per_token=1e-5).rates(12)[5::7]
    [300.0, 500.0]

    Args:
        points: running sequences and the tokens a second that they decode together, by rising counts.
        prefill_s_per_token: see `EngineCurve`, as for the others.
        cached_share: none is cached if not given.
        gpus_per_replica: GPUs of the engine.

    Raises:
        UserError: no points, counts that do not rise, or a number out of range.
    """
    values = {
        "decode": points,
        "prefill_s_per_token": prefill_s_per_token,
        "cached_share": cached_share,
        "gpus_per_replica": gpus_per_replica,
    }
    return _validate(EngineCurve, values, "curve")


def read_scenario(path: Path) -> Scenario:
    """The scenario of a YAML or JSON file.

    Raises:
        UserError: the file cannot be read, or has an unknown key, lacks one, or has a bad value.
    """
    try:
        values = yaml.safe_load(path.read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError) as error:
        raise UserError(f"{path} cannot be read: {first_line(error)}") from None
    except yaml.YAMLError as error:
        raise UserError(f"{path}: expected YAML or JSON: {first_line(error)}") from None
    if not isinstance(values, Mapping):
        raise UserError(f"{path}: expected a mapping, got {type(values).__name__}")
    return _validate(Scenario, values, str(path))


@cache
def _adapter(kind: Any) -> TypeAdapter[Any]:
    return TypeAdapter(kind)


def _validate(kind: Any, values: Mapping[str, Any], where: str) -> Any:
    try:
        return _adapter(kind).validate_python(values)
    except ValidationError as error:
        raise UserError(f"{where}: {'; '.join(_explain(item) for item in error.errors())}") from None


def _explain(item: Any) -> str:
    """One pydantic error as 'key: value: what is allowed'."""
    key = ".".join(str(part) for part in item["loc"])
    if item["type"] == "unexpected_keyword_argument":
        return f"{key}: unknown key"
    if item["type"] == "missing":
        return f"{key}: missing"
    return f"{key}: {item['input']!r}: {item['msg'].removeprefix('Value error, ')}"
