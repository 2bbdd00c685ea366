"""What an engine bills reaches the record of the call, whether it streams or not, whatever is cut off or fails."""

import asyncio
from typing import Any

import pytest

from relay_verl.decoder import RelayConfig, RelayDecoder
from relay_verl.engines import Billed, EngineError, Generation, GuardedEngine, ScriptedEngine
from relay_verl.types import CallOutcome, CallRecord
from tests.helpers.streaming import Streaming
from tests.helpers.tokenizers import ByteTokenizer

TOKENIZER = ByteTokenizer()
EOS = TOKENIZER.eos_token_id
BILLED = Billed(40, 90)


class BillingTeacher:
    """Answers with these ids, and fails as often as told before."""

    def __init__(self, token_ids: list[int], num_failures: int = 0, billed: Any = BILLED):
        self.token_ids = token_ids
        self.num_failures = num_failures
        self.billed = billed

    async def generate(self, prompt_ids: list[int], **_: Any) -> Generation:
        self.num_failures -= 1
        if self.num_failures >= 0:
            raise EngineError("down")
        return Generation(self.token_ids, None, "length", 7, 4, self.billed)


def call_of(teacher: Any, *, streams: bool) -> CallRecord:
    """The record of one call of at most three tokens."""
    student = ScriptedEngine(TOKENIZER, ["Let me<call>3</call>", " done"])
    decoder = RelayDecoder(student, teacher, TOKENIZER, RelayConfig(100, None, 8))
    relay = decoder.stream([1, 2, 3], streams=streams)

    async def read() -> None:
        async for _ in relay:
            pass

    asyncio.run(read())
    return relay.calls[0]


ANSWERS = [
    ([97, 98, 99], 3, "whole"),
    ([97, EOS, 99], 2, "cut behind its end"),
    ([97, 98, 99, 100], 3, "longer than asked for"),
]


@pytest.mark.parametrize(("token_ids", "num_delivered", "why"), ANSWERS, ids=[why for *_, why in ANSWERS])
@pytest.mark.parametrize("num_failures", [0, 2])
def test_what_is_billed_survives_cuts_and_retries(
    token_ids: list[int], num_delivered: int, why: str, num_failures: int
) -> None:
    teacher = GuardedEngine(BillingTeacher(token_ids, num_failures), first_wait_s=0.001)
    call = call_of(teacher, streams=False)
    assert (call.outcome, call.num_delivered) == (CallOutcome.SERVED, num_delivered)
    assert (call.num_billed_input, call.num_billed_output, call.num_cached, call.cache_block) == (40, 90, 7, 4)


@pytest.mark.parametrize("ends_alone", [False, True])
@pytest.mark.parametrize("is_guarded", [False, True])
def test_the_last_piece_of_a_stream_carries_what_is_billed(ends_alone: bool, is_guarded: bool) -> None:
    teacher: Any = Streaming(BillingTeacher([97, 98, 99]), [1], ends_alone=ends_alone)
    call = call_of(GuardedEngine(teacher) if is_guarded else teacher, streams=True)
    assert (call.num_delivered, call.num_billed_input, call.num_billed_output) == (3, 40, 90)


@pytest.mark.parametrize("streams", [False, True])
def test_a_failed_call_that_was_billed(streams: bool) -> None:
    call = call_of(Streaming(BillingTeacher([])), streams=streams)
    assert (call.outcome, call.num_billed_input, call.num_billed_output) == (CallOutcome.FAILED, 40, 90)


def test_a_bill_that_is_none_is_left_out() -> None:
    call = call_of(BillingTeacher([97], billed="a lot"), streams=False)
    assert (call.outcome, call.num_billed_input) == (CallOutcome.SERVED, None)
