"""Invariant 9: the pieces of `stream()` are `run()`'s trajectory, whatever engines cut their answers into, and whatever
becomes of them on the way."""

import asyncio
import dataclasses
from contextlib import aclosing
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from relay_verl.decoder import RelayConfig, RelayDecoder
from relay_verl.deltas import DeltaReader
from relay_verl.engines import Generation, GuardedEngine, ScriptedEngine
from relay_verl.errors import EngineError, TeacherError
from relay_verl.policies import make_policy
from relay_verl.types import CallOutcome, RelayStatus, RelayTrajectory, Segment
from tests.helpers.real_tokenizers import tokenizer_called, tokens_of
from tests.helpers.streaming import HANG, Streaming
from tests.helpers.tokenizers import ByteTokenizer
from tests.helpers.virtual_clock import run_virtually
from tests.unit.core.test_invariants import Asked, Tape, World, worlds

TOKENIZER = ByteTokenizer()
EOS = TOKENIZER.eos_token_id
POLICIES = st.sampled_from(
    ["learned", "learned", "learned", "fixed_3", "random_0.1", "teacher_alone", "student_alone", "teacher_free"]
)
CHUNKS = st.lists(st.integers(0, 4), min_size=1, max_size=5).filter(any)


def config(**values: Any) -> RelayConfig:
    return RelayConfig(**{"max_response_tokens": 200, "max_calls": 3, "max_tokens_per_call": 50, **values})


def decoder_of(world: World, log: list[Asked], student: Any = None, teacher: Any = None, **values: Any) -> RelayDecoder:
    """A decoder over a world's tapes, each behind `Streaming` with these options."""
    engines = [
        Streaming(Tape("student", world.student, log, world.tokenizer, world.overrun), **(student or {})),
        Streaming(Tape("teacher", world.teacher, log, world.tokenizer), **(teacher or {})),
    ]
    return RelayDecoder(*engines, tokenizer_called(world.tokenizer), dataclasses.replace(world.config, **values))


async def read(relay: Any) -> list[Segment]:
    return [piece async for piece in relay]


def without_times(trajectory: RelayTrajectory) -> RelayTrajectory:
    return dataclasses.replace(trajectory, calls=[dataclasses.replace(c, latency_s=0.0) for c in trajectory.calls])


def check_pieces(pieces: list[Segment], trajectory: RelayTrajectory) -> None:
    """Assert that the pieces joined are the trajectory, author by author and token by token."""
    assert [(p.source, i) for p in pieces for i in p.token_ids] == [
        (segment.source, i) for segment in trajectory.segments for i in segment.token_ids
    ]
    marks = [mark for p in pieces for mark in p.is_forced or [False] * len(p.token_ids)]
    assert [not mark for mark in marks] == [bool(mark) for mark in trajectory.sampled_mask]


@pytest.mark.parametrize("tokenizer", ["bpe", "qwen3", "mistral"])
@settings(max_examples=100)
@given(data=st.data())
def test_the_pieces_of_a_stream_are_the_trajectory_of_a_run(tokenizer: str, data: st.DataObject) -> None:
    world = data.draw(worlds(tokenizer))
    policy, seed = data.draw(POLICIES), data.draw(st.integers(0, 9))
    fixed = data.draw(st.sampled_from(["text", "delivered"]))
    options = [{"chunks": data.draw(CHUNKS), "ends_alone": data.draw(st.booleans())} for _ in range(2)]
    logs: list[list[Asked]] = [[], []]
    whole = asyncio.run(
        decoder_of(world, logs[0], fixed_command=fixed).run(world.prompt, policy=make_policy(policy, seed))
    )
    decoder = decoder_of(world, logs[1], *options, fixed_command=fixed)
    relay = decoder.stream(world.prompt, policy=make_policy(policy, seed))
    pieces = asyncio.run(read(relay))
    assert without_times(relay.trajectory()) == without_times(whole)
    check_pieces(pieces, whole)
    if whole.logprobs is not None:
        joined = [logprob for piece in pieces for logprob in piece.logprobs or ()]
        assert joined == [logprob for segment in whole.segments for logprob in segment.logprobs or ()]
    asked = [[(a.who, a.context, a.max_tokens, a.stop) for a in log] for log in logs]
    assert asked[1] == asked[0], "the engines are asked for the same"


@settings(max_examples=150)
@given(data=st.data())
def test_engines_that_fail_in_the_middle(data: st.DataObject) -> None:
    """What a reader has seen stays; what follows is decided as for a failed call."""
    world = data.draw(worlds("bpe"))
    trouble = st.sampled_from([EngineError("on fire"), ValueError("odd"), HANG])
    options = [
        {
            "chunks": data.draw(CHUNKS),
            "trouble_after": data.draw(st.one_of(st.none(), st.integers(0, 12))),
            "trouble": data.draw(trouble),
        }
        for _ in range(2)
    ]
    action = data.draw(st.sampled_from(["continue", "drop", "fail"]))
    limits = {"on_teacher_failure": action, "teacher_timeout_s": 5.0, "student_timeout_s": 5.0}
    decoder = decoder_of(world, [], *options, **limits)
    relay = decoder.stream(world.prompt)
    pieces: list[Segment] = []

    async def collect() -> bool:
        try:
            async for piece in relay:
                pieces.append(piece)
        except TeacherError:
            return True
        return False

    has_raised = run_virtually(collect())
    trajectory = relay.trajectory()
    check_pieces(pieces, trajectory)
    failed = [call for call in trajectory.calls if call.outcome is CallOutcome.FAILED]
    assert has_raised == (bool(failed) and action == "fail")
    delivered = sum(call.num_delivered for call in trajectory.calls)
    assert delivered == trajectory.num_teacher_tokens, "each token of the teacher's is in one call's record"
    assert len(failed) <= world.config.max_failed_calls
    if trajectory.status is RelayStatus.STUDENT_FAILED:
        assert options[0]["trouble_after"] is not None
        assert trajectory.error
    if trajectory.status is RelayStatus.TEACHER_FAILED:
        assert action == "drop"
    assert trajectory.num_tokens <= world.config.max_response_tokens
    assert decoder.student.num_open == decoder.teacher.num_open == 0, "no request is left running"


@settings(max_examples=100)
@given(data=st.data())
def test_a_failure_before_the_first_piece_is_that_of_a_run(data: st.DataObject) -> None:
    world = data.draw(worlds("bpe"))
    num_served = data.draw(st.integers(0, 2))

    class Dying(Tape):
        async def generate(self, *args: Any, **options: Any) -> Generation:
            if sum(asked.who == "teacher" for asked in self.log) >= num_served:
                raise EngineError("gone")
            return await super().generate(*args, **options)

    trajectories = []
    for streams in (False, True):
        log: list[Asked] = []
        student = Streaming(Tape("student", world.student, log, "bpe", world.overrun), data.draw(CHUNKS))
        teacher = Streaming(Dying("teacher", world.teacher, log, "bpe"))
        relay = RelayDecoder(student, teacher, tokenizer_called("bpe"), world.config).stream(
            world.prompt, streams=streams
        )
        asyncio.run(read(relay))
        trajectories.append(without_times(relay.trajectory()))
    assert trajectories[0] == trajectories[1]


@settings(max_examples=100)
@given(data=st.data())
def test_a_reader_who_leaves_ends_both_engines_requests(data: st.DataObject) -> None:
    world = data.draw(worlds("bpe"))
    num_read = data.draw(st.integers(0, 12))
    decoder = decoder_of(world, [], {"chunks": [1, 2]}, {"chunks": [1]})
    relay = decoder.stream(world.prompt)
    pieces: list[Segment] = []

    async def leave() -> None:
        async with aclosing(relay):
            async for piece in relay:
                pieces.append(piece)
                if len(pieces) > num_read:
                    break
        for _ in range(3):
            await asyncio.sleep(0)
        assert decoder.student.num_open == decoder.teacher.num_open == 0

    asyncio.run(leave())
    trajectory = relay.trajectory()
    check_pieces(pieces, trajectory)
    assert sum(call.num_delivered for call in trajectory.calls) == trajectory.num_teacher_tokens


async def test_a_reader_who_is_cancelled_while_it_waits_ends_the_request() -> None:
    student = Streaming(ScriptedEngine(TOKENIZER, ["abc"]), trouble_after=3)
    relay = RelayDecoder(student, None, TOKENIZER, config()).stream([1])
    task = asyncio.create_task(read(relay))
    while student.num_pieces < 2:
        await asyncio.sleep(0)
    task.cancel()
    await asyncio.wait({task})
    for _ in range(5):
        await asyncio.sleep(0)
    assert task.cancelled()
    assert (student.num_open, student.num_cancelled) == (0, 1)


@pytest.mark.parametrize("author", ["student", "teacher"])
def test_a_stream_that_goes_silent_fails_in_time(author: str) -> None:
    """Also when it has begun, and while other streams of the same engine run."""
    hanging = {"trouble_after": 3 if author == "teacher" else 4}
    student = Streaming(ScriptedEngine(TOKENIZER, ["a<call>5</call>b"]), **(hanging if author == "student" else {}))
    teacher = Streaming(ScriptedEngine(TOKENIZER, ["xyzuvw"]), **(hanging if author == "teacher" else {}))
    limits = config(student_timeout_s=100.0, teacher_timeout_s=10.0)
    relay = RelayDecoder(student, teacher, TOKENIZER, limits).stream([1])

    async def time() -> float:
        await read(relay)
        return asyncio.get_running_loop().time()

    seconds = run_virtually(time())
    trajectory = relay.trajectory()
    if author == "student":
        assert 100.0 <= seconds <= 101.0
        assert trajectory.status is RelayStatus.STUDENT_FAILED
        assert "no more of the answer" in trajectory.error
    else:
        assert 10.0 <= seconds <= 11.0
        assert trajectory.status is RelayStatus.COMPLETED
        [call] = trajectory.calls
        assert (call.outcome, call.num_delivered) == (CallOutcome.FAILED, 2)
        assert TOKENIZER.decode(trajectory.response_ids) == "a<call>5</call>xyb"


def test_a_slow_reader_is_not_a_silent_engine() -> None:
    student = Streaming(ScriptedEngine(TOKENIZER, ["abcdef"]))
    relay = RelayDecoder(student, None, TOKENIZER, config(student_timeout_s=1.0)).stream([1])

    async def read_slowly() -> None:
        async for _ in relay:
            await asyncio.sleep(500.0)

    run_virtually(read_slowly())
    assert TOKENIZER.decode(relay.trajectory().response_ids) == "abcdef"
    assert relay.trajectory().status is RelayStatus.COMPLETED


class Broken:
    """Has a mistake in its code."""

    async def generate(self, prompt_ids: list[int], **_: Any) -> Generation:
        return prompt_ids.token_ids  # type: ignore[attr-defined]

    async def stream(self, prompt_ids: list[int], **_: Any) -> Any:
        yield await self.generate(prompt_ids)


@pytest.mark.parametrize("streams", [False, True])
@pytest.mark.parametrize("author", ["student", "teacher"])
async def test_a_bug_in_an_engine_is_raised_where_it_is_asked_for(author: str, streams: bool) -> None:
    scripts = [lambda context: "a<call>5</call>b", lambda context: "xyz"]
    engines: list[Any] = [ScriptedEngine(TOKENIZER, script) for script in scripts]
    engines[author == "teacher"] = Broken()
    decoder = RelayDecoder(*engines, TOKENIZER, config(), raises_bugs=True)
    with pytest.raises(AttributeError, match="token_ids"):
        await read(decoder.stream([1], streams=streams))
    in_training = RelayDecoder(*engines, TOKENIZER, config())
    trajectory = await in_training.run([1])
    assert "AttributeError" in (trajectory.error or trajectory.calls[0].error)


async def test_run_asks_for_whole_turns() -> None:
    student = Streaming(ScriptedEngine(TOKENIZER, ["a<call>5</call>b"]))
    teacher = Streaming(ScriptedEngine(TOKENIZER, ["xyz"]))
    await RelayDecoder(student, teacher, TOKENIZER, config()).run([1])
    assert student.num_opened == teacher.num_opened == 0


async def test_an_engine_that_cannot_stream_gives_a_turn_at_a_time() -> None:
    class Whole:
        def __init__(self, engine: Any):
            self.generate = engine.generate

    student = Whole(ScriptedEngine(TOKENIZER, ["a<call>5</call>", "b"]))
    teacher = ScriptedEngine(TOKENIZER, ["xyz", "more"], chunk=2)
    pieces = await read(RelayDecoder(student, teacher, TOKENIZER, config()).stream([1]))
    assert [(piece.source[0], len(piece.token_ids)) for piece in pieces] == [
        ("s", 15), ("t", 2), ("t", 1), ("s", 2),
    ]  # fmt: skip
    guarded = GuardedEngine(student)  # type: ignore[arg-type]
    assert guarded.stream is None


# ---- what a reader gets of it ----


@settings(max_examples=100)
@given(data=st.data())
def test_a_reader_of_a_stream_gets_the_text_of_the_run(data: st.DataObject) -> None:
    world = data.draw(worlds("bpe"))
    options = [{"chunks": data.draw(CHUNKS)} for _ in range(2)]
    stop = data.draw(st.lists(st.sampled_from(["x", ". ", " so x", "é", "<", "\n\n"]), max_size=2))
    shows = data.draw(st.booleans())
    texts, taken = [], []
    for chunks, streams in (((None, None), False), (options, True)):
        reader = DeltaReader(tokens_of("bpe"), stop=stop, show_commands=shows)
        relay = decoder_of(world, [], *chunks).stream(world.prompt, streams=streams)
        deltas = [delta for piece in asyncio.run(read(relay)) for delta in reader.feed(piece)] + reader.end()
        texts.append("".join(delta.text for delta in deltas))
        taken.append([(delta.source, i) for delta in deltas for i in delta.token_ids])
        response = [(s.source, i) for s in relay.trajectory().segments for i in s.token_ids]
        assert taken[-1] == response, "each token once"
    assert texts[0] == texts[1]
    assert shows or "<call>" not in texts[0] or "</call>" not in texts[0]
