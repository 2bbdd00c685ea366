"""What the loop itself costs: seconds of the CPU a turn, with engines that answer at once, for many trajectories.

Two ways to do the same turns: the decoder's (`relay_verl.decoder`), and the plainest loop, which asks the same engines
for the same turns without deadlines, commands, records or checks. Nothing else runs: no engine, no Ray, no grading.
All trajectories are under way at the same time, as in a rollout, so what grows with their number shows.
"""

from __future__ import annotations

import asyncio
import math
import statistics
import time
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from relay_verl.decoder import RelayConfig, RelayDecoder
from relay_verl.engines.base import Generation
from relay_verl.garbage import collecting_seldom
from relay_verl.markdown import markdown_table
from relay_verl.protocol import format_call

PROMPT_TOKENS = 100
STUDENT_TOKENS = 40
"""Tokens of a student's turn, its command among them."""
TEACHER_TOKENS = 20
"""Tokens of a call."""
NUM_CALLS = 4
NUM_TURNS = 2 * NUM_CALLS + 1
"""Of a response: the student's, the teacher's, and the student's last one."""


class ByteTokenizer:
    """One token a byte, and an end of sequence without text: no model is needed."""

    eos_token_id = 256

    def encode(self, text: str, *, add_special_tokens: bool = False) -> list[int]:
        """The bytes of a text."""
        return list(text.encode("utf-8"))

    def decode(self, token_ids: list[int], *, skip_special_tokens: bool = False) -> str:
        """The text of these bytes."""
        return bytes(token_id for token_id in token_ids if token_id < 256).decode("utf-8", errors="replace")


class InstantEngine:
    """Gives the same turn again and again, each once all others had a turn of the event loop.

    Args:
        turn: what it writes.
        last: what it writes once the response has `num_tokens` tokens.
        num_tokens: of the response.
    """

    def __init__(self, turn: Generation, last: Generation, num_tokens: float):
        self._turn = turn
        self._last = last
        self._ends_at = PROMPT_TOKENS + num_tokens

    async def generate(
        self,
        prompt_ids: list[int],
        *,
        max_tokens: int,
        stop: Sequence[str] = (),
        sampling: Mapping[str, Any] = {},
        request_id: str | None = None,
    ) -> Generation:
        """See `TokenEngine.generate`."""
        await asyncio.sleep(0)
        return self._last if len(prompt_ids) >= self._ends_at else self._turn


@dataclass(frozen=True)
class LoopCost:
    """CPU of one number of trajectories, in microseconds a turn, by round."""

    num_trajectories: int
    """All under way at the same time."""
    relay: list[float]
    """The decoder's, [rounds]."""
    plain: list[float]
    """The plainest loop's, [rounds]."""


def make_engines(tokenizer: ByteTokenizer) -> tuple[InstantEngine, InstantEngine]:
    """A student that calls `NUM_CALLS` times, and its teacher."""
    command = tokenizer.encode(format_call(TEACHER_TOKENS))
    words = tokenizer.encode("a" * STUDENT_TOKENS)
    ids = words[len(command) :] + command
    student = Generation(ids, [-0.5] * len(ids), "stop")
    last = Generation([*words[1:], tokenizer.eos_token_id], [-0.5] * STUDENT_TOKENS, "eos")
    call = Generation(tokenizer.encode("b" * TEACHER_TOKENS), None, "length")
    return InstantEngine(student, last, NUM_CALLS * (STUDENT_TOKENS + TEACHER_TOKENS)), InstantEngine(
        call, call, math.inf
    )


def measure_loop(numbers: Sequence[int], rounds: int) -> list[LoopCost]:
    """Run each number of trajectories both ways in turn, `rounds` times after one that is not counted."""
    tokenizer = ByteTokenizer()
    student, teacher = make_engines(tokenizer)
    limits = RelayConfig(max_response_tokens=1000, max_calls=None, max_tokens_per_call=100)
    decoder = RelayDecoder(student, teacher, tokenizer, limits)
    prompt = tokenizer.encode("p" * PROMPT_TOKENS)

    async def relay() -> int:
        return len((await decoder.run(prompt)).response_ids)

    async def plain() -> int:
        context = list(prompt)
        while True:
            turn = await student.generate(list(context), max_tokens=1000)
            context += turn.token_ids
            if turn.finish_reason == "eos":
                return len(context) - len(prompt)
            context += (await teacher.generate(list(context), max_tokens=TEACHER_TOKENS)).token_ids

    costs = [LoopCost(number, [], []) for number in numbers]
    for counted in range(rounds + 1):
        for cost in costs:
            ways = {"relay": (relay, cost.relay), "plain": (plain, cost.plain)}
            lengths = {}
            for name, (respond, times) in ways.items():
                seconds, lengths[name] = _cpu_of(respond, cost.num_trajectories)
                if counted:
                    times.append(1e6 * seconds / (cost.num_trajectories * NUM_TURNS))
            assert lengths["relay"] == lengths["plain"], lengths
    return costs


def _cpu_of(respond: Callable[[], Awaitable[int]], num: int) -> tuple[float, int]:
    """Seconds of this process's CPU for so many responses at the same time, and their tokens."""

    async def all_of_them() -> int:
        return sum(await asyncio.gather(*(respond() for _ in range(num))))

    with collecting_seldom():  # as a rollout worker does
        started = time.process_time()
        num_tokens = asyncio.run(all_of_them())
        return time.process_time() - started, num_tokens


def costs_to_markdown(costs: Sequence[LoopCost]) -> str:
    """A table, median (least to most), and how the decoder's cost grows with the number of trajectories."""
    rows = []
    for cost in costs:
        ratios = [mine / limit for mine, limit in zip(cost.relay, cost.plain, strict=True)]
        rows.append([f"{cost.num_trajectories:,}", *map(_spread, (cost.relay, cost.plain, ratios))])
    table = markdown_table(["trajectories", "relay, us a turn", "plain loop, us a turn", "relay / plain"], rows)
    first, last = costs[0], costs[-1]
    if first.num_trajectories == last.num_trajectories:
        return table
    growth = statistics.median(last.relay) / statistics.median(first.relay)
    power = 1 + math.log(growth) / math.log(last.num_trajectories / first.num_trajectories)
    return f"{table}\n\nCPU of all turns grows as n^{power:.2f} with the number of trajectories n"


def _spread(values: Sequence[float]) -> str:
    return f"{statistics.median(values):.1f} ({min(values):.1f} to {max(values):.1f})"


def bench_loop(numbers: Sequence[int], rounds: int) -> str:
    """Measure, and give the table."""
    return costs_to_markdown(measure_loop(sorted(numbers), rounds))
