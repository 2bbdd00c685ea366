"""Deferral by the student's engine: who writes which token, in pieces or whole, and what a dead teacher does."""

from __future__ import annotations

import asyncio
import hashlib
from collections.abc import AsyncGenerator, Mapping, Sequence
from dataclasses import replace
from itertools import pairwise
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from relay_verl.decoder import RelayConfig, RelayDecoder
from relay_verl.deferral import THRESHOLD_ARG, Deferral
from relay_verl.engines import Generation
from relay_verl.errors import EngineError, UserError
from relay_verl.policies import make_policy, parse_policy, policy_words
from relay_verl.types import RelayStatus, RelayTrajectory
from tests.helpers.tokenizers import ByteTokenizer

TOKENIZER = ByteTokenizer()
EOS = TOKENIZER.eos_token_id
PROMPT = TOKENIZER.encode("Q: ")
RESERVED = 400


def draw(context: Sequence[int], salt: str) -> float:
    """A number from 0 to 1 that the context decides."""
    digest = hashlib.sha256(f"{salt}{list(context)}".encode()).digest()
    return int.from_bytes(digest[:4], "big") / 2**32


class HashModel:
    """Writes a letter that the context decides, and sometimes ends; with a head whose scores the context decides.

    Args:
        salt: tells one model from another.
        chunk: tokens of a piece of a stream.
        fails_after: requests until it fails.
    """

    def __init__(self, salt: str, chunk: int = 3, fails_after: int | None = None):
        self.salt = salt
        self.chunk = chunk
        self.fails_after = fails_after
        self.num_requests = 0

    def next(self, context: Sequence[int]) -> int:
        drawn = draw(context, self.salt)
        return EOS if drawn < 0.04 else ord("a") + int(drawn * 26)

    def score(self, context: Sequence[int]) -> float:
        return draw(context, "score")

    async def generate(
        self, prompt_ids: list[int], *, max_tokens: int, sampling: Mapping[str, Any] = {}, **_: Any
    ) -> Generation:
        self.num_requests += 1
        if self.fails_after is not None and self.num_requests > self.fails_after:
            raise EngineError("gone")
        threshold = (sampling.get("extra_args") or {}).get(THRESHOLD_ARG)
        assert (threshold is None) == (RESERVED not in sampling.get("stop_token_ids", ()))
        ids: list[int] = []
        while len(ids) < max_tokens:
            context = [*prompt_ids, *ids]
            is_deferred = threshold is not None and self.score(context) < threshold
            ids.append(RESERVED if is_deferred else self.next(context))
            if ids[-1] in (EOS, RESERVED):
                return Generation(ids, [-0.5] * len(ids), "eos")
        return Generation(ids, [-0.5] * len(ids), "length")

    async def stream(self, prompt_ids: list[int], **options: Any) -> AsyncGenerator[Generation, None]:
        whole = await self.generate(prompt_ids, **options)
        starts = range(0, len(whole.token_ids), self.chunk)
        for start in starts:
            ids = whole.token_ids[start : start + self.chunk]
            yield Generation(ids, [-0.5] * len(ids), whole.finish_reason if start == starts[-1] else None)


def write(policy: str, config: RelayConfig, *, chunk: int | None = None, teacher: Any = None) -> RelayTrajectory:
    decoder = RelayDecoder(HashModel("s", chunk or 3), teacher or HashModel("t", chunk or 3), TOKENIZER, config)

    async def run() -> RelayTrajectory:
        if chunk is None:
            return await decoder.run(PROMPT, policy=make_policy(policy))
        relay = decoder.stream(PROMPT, policy=make_policy(policy))
        async for _ in relay:
            pass
        return relay.trajectory()

    return asyncio.run(run())


def config_of(max_tokens: int, num_tokens: int = 1, **others: Any) -> RelayConfig:
    deferral = Deferral(RESERVED, 0.5, num_tokens)
    return RelayConfig(max_tokens, max_calls=0, max_tokens_per_call=64, deferral=deferral, **others)


def expected(threshold: float, max_tokens: int, num_tokens: int) -> list[tuple[str, int]]:
    """Who writes what, token by token."""
    student, teacher = HashModel("s"), HashModel("t")
    context, written = list(PROMPT), []
    while len(written) < max_tokens:
        is_deferred = student.score(context) < threshold
        writer = teacher if is_deferred else student
        for _ in range(min(num_tokens if is_deferred else 1, max_tokens - len(written))):
            written.append((writer.salt, writer.next(context)))
            context.append(written[-1][1])
            if written[-1][1] == EOS:
                return written
    return written


@given(st.floats(0, 1.5), st.integers(1, 40), st.integers(1, 5), st.one_of(st.none(), st.integers(1, 6)))
def test_each_token_is_its_writers(threshold: float, max_tokens: int, num_tokens: int, chunk: int | None) -> None:
    threshold = round(threshold, 3)
    trajectory = write(f"deferred_{threshold:f}", config_of(max_tokens, num_tokens), chunk=chunk)
    whole = [(segment.source[0], i) for segment in trajectory.segments for i in segment.token_ids]
    assert whole == expected(threshold, max_tokens, num_tokens)
    assert RESERVED not in trajectory.response_ids
    assert trajectory.status is RelayStatus.COMPLETED
    assert all(not call.has_command and call.num_requested == num_tokens for call in trajectory.calls)
    assert sum(call.num_delivered for call in trajectory.calls) == trajectory.num_teacher_tokens
    assert all(one.source != other.source for one, other in pairwise(trajectory.segments))


@pytest.mark.parametrize("chunk", [None, 2])
def test_ends_of_the_scale(chunk: int | None) -> None:
    config = config_of(60)
    assert write("deferred_0", config, chunk=chunk).segments == write("student_alone", config, chunk=chunk).segments
    always, alone = write("deferred_1.5", config, chunk=chunk), write("teacher_alone", config, chunk=chunk)
    assert always.response_ids == alone.response_ids
    assert always.call_ratio == 1


def test_own_threshold() -> None:
    assert write("deferred", config_of(40)).response_ids == write("deferred_0.5", config_of(40)).response_ids


def test_a_dead_teacher_is_asked_once_more() -> None:
    """'continue': the student writes the rest alone, in one request."""
    teacher = HashModel("t", fails_after=2)
    trajectory = write("deferred_0.9", config_of(40), teacher=teacher)
    assert trajectory.status is RelayStatus.COMPLETED
    assert teacher.num_requests == 3 and trajectory.num_failed_calls == 1 and trajectory.num_teacher_tokens == 2
    dropped = write("deferred_0.9", config_of(40, on_teacher_failure="drop"), teacher=HashModel("t", fails_after=0))
    assert dropped.status is RelayStatus.TEACHER_FAILED


def test_without_a_head_it_is_an_error() -> None:
    with pytest.raises(UserError, match=r"relay\.defer\.head"):
        write("deferred_0.9", replace(config_of(40), deferral=None))


def test_names() -> None:
    assert [policy_words(name) for name in ("deferred", "deferred_0.95")] == ["deferred", "deferred 0.95"]
    assert not parse_policy("deferred_0.95").kind.is_trainable
    for bad in ("deferred_2", "deferred_-1", "deferred_x"):
        with pytest.raises(UserError, match="policy"):
            make_policy(bad)
