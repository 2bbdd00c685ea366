"""What a relay server's hand-overs take, and the server against a proxy that relays over texts.

Questions are streamed through `/v1/chat/completions`, commands shown. A hand-over is from the last piece of
the student's, which is its command, to the first of the teacher's; in student tokens it is divided by the median time
of the student's own tokens in the same answers. The naive proxy (`naive_proxy`) answers the same questions over the
bare servers behind the relay, in turn with it.
"""

from __future__ import annotations

import asyncio
import statistics
import time
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, TypeVar

import numpy as np

from relay_verl.bench.naive_proxy import NaiveAnswer, NaiveProxy
from relay_verl.bench.relayed_answer import RelayedAnswer, TimedPiece
from relay_verl.bench.running_server import RunningServer
from relay_verl.bench.timing import ratios_of, run_in_turn, spread_of
from relay_verl.markdown import markdown_table
from relay_verl.protocol import strip_calls

Messages = Sequence[Mapping[str, Any]]
T = TypeVar("T", RelayedAnswer, NaiveAnswer)

CACHE_CONFIG = "vllm:cache_config_info"
_OURS, _NAIVE = "relay", "naive"


@dataclass(frozen=True)
class Timed:
    """Answers to all questions, written in one round."""

    answers: Sequence[Any]
    """In the order of the questions."""
    answer_s: Sequence[float]
    """Seconds that each took."""
    seconds: float
    """Seconds that all took."""

    @property
    def tokens_per_s(self) -> float:
        """Response tokens a second."""
        return float(sum(answer.num_tokens for answer in self.answers) / self.seconds)


async def bench_hand_overs(
    relay: RunningServer, naive: NaiveProxy, questions: Sequence[Messages], concurrencies: Sequence[int], rounds: int
) -> str:
    """The two tables: hand-overs at each concurrency, and the relay against the naive proxy.

    Raises:
        EngineError: a server does not answer.
    """
    prompts = await asyncio.gather(*(_prompt_text(relay, messages) for messages in questions))
    block_size = await _block_size(naive.teacher)
    hand_overs, ratios = [], []
    for concurrency in concurrencies:

        async def ours(concurrency: int = concurrency) -> Timed:
            return await _answer_all(
                lambda messages: ask_relay(relay, messages, naive.max_tokens, naive.temperature), questions, concurrency
            )

        async def over_texts(concurrency: int = concurrency) -> Timed:
            return await _answer_all(naive.answer, prompts, concurrency)

        results = await run_in_turn({_OURS: ours, _NAIVE: over_texts}, rounds)
        answers = [answer for timed in results[_OURS] for answer in timed.answers]
        hand_overs.append([str(concurrency), *_hand_over_cells(answers, block_size)])
        ratios.append([str(concurrency), *_ratio_cells(results[_OURS], results[_NAIVE])])
    heads = [
        "concurrency",
        "calls",
        "failed",
        "to the teacher, ms",
        "to the teacher, p90",
        "in student tokens",
        "back, ms",
        "back, p90",
        "teacher read, tokens",
        "from its cache",
        f"of blocks read again ({block_size or 'unknown'} tokens each)",
    ]
    words = (
        f"With calls: {rounds} rounds of {len(questions)} questions, temperature {naive.temperature:g}, at most "
        f"{naive.max_tokens} tokens; "
        "hand-overs are medians"
    )
    ratio_heads = [
        "concurrency",
        "s a response, relay",
        "s a response, naive",
        "s, relay / naive",
        "tokens/s, relay",
        "tokens/s, naive",
        "tokens/s, relay / naive",
        "calls, relay",
        "calls, naive",
        "texts that differ",
    ]
    ratio_words = "Against a proxy over texts, in turn; ratios are median (least to most)"
    return f"{words}:\n\n{markdown_table(heads, hand_overs)}\n\n{ratio_words}:\n\n{markdown_table(ratio_heads, ratios)}"


async def ask_relay(
    relay: RunningServer, messages: Messages, max_tokens: int, temperature: float = 0.0
) -> RelayedAnswer:
    """The answer to a question, streamed.

    Raises:
        EngineError: there is none.
    """
    body = {
        "model": relay.model,
        "messages": list(messages),
        "max_tokens": max_tokens,
        "temperature": temperature,
        "stream": True,
        "stream_options": {"include_usage": True},
        "return_token_ids": True,  # a piece may hold several tokens
        "relay": {"show_commands": True},
    }
    pieces: list[TimedPiece] = []
    usage: dict[str, Any] = {}
    async for arrived_at, chunk in relay.stream("/v1/chat/completions", body):
        usage = chunk.get("usage") or usage
        for choice in chunk["choices"]:
            author = choice["delta"].get("relay") or {}
            text, num_tokens = choice["delta"].get("content") or "", len(choice.get("token_ids") or ())
            if text or num_tokens:
                source, is_command = author.get("source", "student"), author.get("kind") == "command"
                pieces.append(TimedPiece(arrived_at, source, is_command, num_tokens, text))
    spent = usage["relay"]
    return RelayedAnswer(
        pieces,
        usage["prompt_tokens"],
        usage["completion_tokens"],
        spent["num_calls"],
        spent["num_failed_calls"],
        spent["teacher_cached_tokens"] + spent["teacher_prefilled_tokens"],
        spent["teacher_cached_tokens"],
    )


async def _prompt_text(relay: RunningServer, messages: Messages) -> str:
    """The prompt that the relay makes of a question."""
    tokens = (await relay.post("/tokenize", {"model": relay.model, "messages": list(messages)}))["tokens"]
    text: str = (await relay.post("/detokenize", {"model": relay.model, "tokens": tokens}))["prompt"]
    return text


async def _block_size(teacher: RunningServer) -> int | None:
    """Tokens of a block of the teacher's cache; None where its server does not say."""
    for labels, _ in (await teacher.counters()).get(CACHE_CONFIG, []):
        if (size := labels.get("block_size", "")).isdigit():
            return int(size)
    return None


async def _answer_all(ask: Callable[[Any], Awaitable[T]], questions: Sequence[Any], concurrency: int) -> Timed:
    places = asyncio.Semaphore(concurrency)

    async def answer(question: Any) -> tuple[T, float]:
        async with places:
            started_at = time.perf_counter()
            return await ask(question), time.perf_counter() - started_at

    started_at = time.perf_counter()
    done = await asyncio.gather(*map(answer, questions))
    return Timed([each for each, _ in done], [seconds for _, seconds in done], time.perf_counter() - started_at)


def _hand_over_cells(answers: Sequence[RelayedAnswer], block_size: int | None) -> list[str]:
    to_teacher = [gap for answer in answers for gap in answer.gaps("student", "teacher")]
    to_student = [gap for answer in answers for gap in answer.gaps("teacher", "student")]
    token_times = [each for answer in answers for each in answer.token_times()]
    num_read, num_cached = (sum(getattr(answer, name) for answer in answers) for name in ("num_read", "num_cached"))
    token_s = statistics.median(token_times) if token_times else 0.0
    # a first call may find a prompt of an earlier round, which must not stand for what a later call has to read anew
    reread = [(answer.num_reread(block_size), answer.num_cached) for answer in answers] if block_size else []
    return [
        str(sum(answer.num_calls for answer in answers)),
        str(sum(answer.num_failed_calls for answer in answers)),
        *_median_and_p90(to_teacher),
        f"{statistics.median(to_teacher) / token_s:.1f}" if to_teacher and token_s else "",
        *_median_and_p90(to_student),
        str(num_read),
        _share(num_cached, num_read),
        _share(sum(map(min, reread)), sum(num for num, _ in reread)),
    ]


def _ratio_cells(ours: Sequence[Timed], naive: Sequence[Timed]) -> list[str]:
    answer_s = [[statistics.median(timed.answer_s) for timed in results] for results in (ours, naive)]
    speeds = [[timed.tokens_per_s for timed in results] for results in (ours, naive)]
    calls = [[sum(answer.num_calls for answer in timed.answers) for timed in results] for results in (ours, naive)]
    both = [[strip_calls(answer.text) for timed in results for answer in timed.answers] for results in (ours, naive)]
    num_other = sum(one != other for one, other in zip(*both, strict=True))
    return [
        *(f"{statistics.median(each):.3f}" for each in answer_s),
        spread_of(ratios_of(*answer_s)),
        *(f"{statistics.median(each):.0f}" for each in speeds),
        spread_of(ratios_of(*speeds)),
        *(str(sum(each)) for each in calls),
        f"{num_other} of {len(both[0])}",
    ]


def _median_and_p90(seconds: Sequence[float]) -> list[str]:
    return [f"{np.percentile(seconds, share) * 1000:.1f}" for share in (50, 90)] if seconds else ["", ""]


def _share(part: int, whole: int) -> str:
    return f"{part / whole:.1%}" if whole else ""
