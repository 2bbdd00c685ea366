"""Tentative calls: a policy decides once it has seen what the student wrote before them."""

import asyncio
from collections.abc import Iterator

from hypothesis import given
from hypothesis import strategies as st

from relay_verl.decoder import RelayConfig, RelayDecoder
from relay_verl.engines import Generation, ScriptedEngine
from relay_verl.policy_base import Interruption, Policy
from tests.helpers.tokenizers import ByteTokenizer

TEXT = "abcdefghijklmnopqrstuvwxyz"
Step = tuple[int, int | None, int]
"""Student tokens before a call; how many of them stay, None to leave the call out; teacher tokens."""


class Planned(Policy):
    """Looks at the student's tokens at places that are given."""

    allows_calls = False

    def __init__(self, steps: list[Step]):
        self._steps = iter(steps)
        self._step: Step | None = None
        self.seen: list[str] = []

    def next_interruption(self) -> Interruption | None:
        self._step = next(self._steps, None)
        return None if self._step is None else Interruption(self._step[0], 1, is_tentative=True)

    def settle(self, planned: Interruption, written: Generation) -> Interruption | None:
        self.seen.append("".join(map(chr, written.token_ids)))
        assert self._step is not None
        _, num_kept, num_tokens = self._step
        return None if num_kept is None else Interruption(num_kept, num_tokens)


STEPS = st.lists(
    st.integers(1, 4).flatmap(
        lambda number: st.tuples(st.just(number), st.none() | st.integers(0, number), st.integers(1, 3))
    ),
    max_size=6,
)


def expected(steps: list[Step], room: int) -> Iterator[tuple[str, str]]:
    """Author and token of each place: the student writes the letter of the place, the teacher 'T'."""
    place = 0
    for number, num_kept, num_tokens in [*steps, (room, None, 0)]:
        is_whole = place + number <= room
        kept = number if num_kept is None or not is_whole else num_kept
        for _ in range(min(kept, room - place)):
            yield "student", TEXT[place]
            place += 1
        if num_kept is not None and is_whole:
            for _ in range(min(num_tokens, room - place)):
                yield "teacher", "T"
                place += 1
        if place == room:
            return


@given(STEPS, st.integers(1, 20), st.booleans())
def test_the_response_is_what_the_policy_leaves_and_a_stream_shows_nothing_else(
    steps: list[Step], room: int, streams: bool
) -> None:
    tokenizer = ByteTokenizer()
    student = ScriptedEngine(tokenizer, lambda context: TEXT[len(context) - 1 :], chunk=2)
    teacher = ScriptedEngine(tokenizer, lambda _: "TTTT")
    policy = Planned(steps)
    decoder = RelayDecoder(student, teacher, tokenizer, RelayConfig(room, None, 8))
    relay = decoder.stream([1], policy=policy, streams=streams)

    async def read() -> list[tuple[str, str]]:
        return [(piece.source, chr(token_id)) async for piece in relay for token_id in piece.token_ids]

    assert asyncio.run(read()) == list(expected(steps, room))
    trajectory = relay.trajectory()
    assert len(trajectory.response_ids) == room
    assert trajectory.logprobs is not None
    assert len(trajectory.logprobs) == room
