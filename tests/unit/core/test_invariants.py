"""The seven invariants of the design, each over random responses.

The students and teachers here write random tapes of tokens that run over the borders of commands, cut anyhow: of a
small BPE made for this, and of each real tokenizer.
"""

import asyncio
import itertools
import random
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from relay_verl.decoder import RelayConfig, RelayDecoder
from relay_verl.engines import Generation, ScriptedEngine
from relay_verl.errors import EngineError, TeacherError
from relay_verl.rewards import difficulty_aware_reward, simple_reward
from relay_verl.tokenization import TokenBytes
from relay_verl.types import CallOutcome, RelayStatus, RelayTrajectory, Segment
from tests.helpers.real_tokenizers import ALL, cut_anyhow, ids_by_bytes, tokenizer_called, tokens_of
from tests.helpers.tokenizers import COMMAND, ByteTokenizer, check_stripped, fragments, turns

# ---- random worlds ----


@dataclass
class Asked:
    """One request to an engine and what it produced."""

    who: str
    context: list[int]
    max_tokens: int
    stop: tuple[str, ...]
    produced: Generation


class Tape:
    """Writes a fixed tape of ids, then the EOS: up to `max_tokens`, an EOS, or the token that completes a stop string,
    and up to `overrun` tokens more, as an engine that looks late does. Notes everything in `log`."""

    def __init__(self, who: str, ids: list[int], log: list[Asked], tokenizer: str, overrun: int = 0):
        self.who, self.log, self.overrun = who, log, overrun
        self.eos = tokenizer_called(tokenizer).eos_token_id
        self.tape = iter([*ids, self.eos])
        self.tokens = tokens_of(tokenizer)
        self.num_written = 0

    async def generate(
        self, prompt_ids: list[int], *, max_tokens: int, stop: Any = (), sampling: Any = None, request_id: Any = None
    ) -> Generation:
        ids: list[int] = []
        text = b""
        reason, late = "length", None
        while len(ids) < max_tokens and late != 0:
            token_id = next(self.tape, self.eos)
            if late is not None and token_id == self.eos:
                break
            ids.append(token_id)
            text += self.tokens.to_bytes(token_id)
            if token_id == self.eos:
                reason = "eos"
                break
            if late is not None:
                late -= 1
            elif any(string.encode() in text for string in stop):
                reason, late = "stop", self.overrun
        logprobs = [-1.0 - self.num_written - i for i in range(len(ids))]  # each token has its own
        self.num_written += len(ids)
        produced = Generation(ids, logprobs, reason)  # type: ignore[arg-type]
        self.log.append(Asked(self.who, list(prompt_ids), max_tokens, tuple(stop), produced))
        return produced


@dataclass
class World:
    """What is needed for one response."""

    student: list[int]
    teacher: list[int]
    prompt: list[int]
    config: RelayConfig
    overrun: int
    tokenizer: str
    log: list[Asked] = field(default_factory=list)
    pieces: list[Segment] = field(default_factory=list)

    def run(self, *, has_teacher: bool = True) -> RelayTrajectory:
        """Write the response once more; `log` and `pieces` tell of this run."""
        self.log, self.pieces = [], []
        teacher = Tape("teacher", self.teacher, self.log, self.tokenizer) if has_teacher else None
        student = Tape("student", self.student, self.log, self.tokenizer, self.overrun)
        relay = RelayDecoder(student, teacher, tokenizer_called(self.tokenizer), self.config).stream(self.prompt)

        async def collect() -> None:
            async for piece in relay:
                self.pieces.append(piece)

        asyncio.run(collect())
        return relay.trajectory()


CHOICES = st.lists(st.integers(0, 5), min_size=1, max_size=6)


@pytest.fixture(scope="module", autouse=True)
def tokenizers_are_loaded() -> None:
    """Their libraries draw random numbers when they are imported, which Hypothesis would take for ours."""
    for name in ALL:
        ids_by_bytes(name)


@st.composite
def worlds(
    draw: st.DrawFn, tokenizer: str, digits: tuple[bytes, ...] = (b"5", b"0", b"20", b"3"), max_calls: int = 4
) -> World:
    student = draw(st.one_of(turns(digits), turns(digits), fragments(digits=digits, max_size=14)))
    texts = [student, b"so x" + draw(fragments(digits=digits)), draw(fragments(digits=digits, max_size=2))]
    ids = [cut_anyhow(tokenizer, text, draw(CHOICES)) for text in texts]
    if draw(st.integers(0, 3)) == 3:
        ids[1].insert(draw(st.integers(0, len(ids[1]))), tokenizer_called(tokenizer).eos_token_id)
    prompt = [] if COMMAND.search(tokens_of(tokenizer).join(ids[2])) else ids[2]
    config = RelayConfig(
        max_response_tokens=draw(st.one_of(st.integers(60, 120), st.integers(1, 60))),
        max_calls=draw(st.integers(min(1, max_calls), max_calls)),
        max_tokens_per_call=draw(st.integers(1, 8)),
    )
    return World(ids[0], ids[1], prompt, config, draw(st.integers(0, 3)), tokenizer)


@pytest.mark.parametrize("name", ALL)
def test_the_worlds_are_not_idle(name: str) -> None:
    """Enough of the random responses hold served calls, several of them, commands cut inside tokens, overruns."""
    num_calls: list[int] = []
    was_cut: list[bool] = []
    is_crossed: list[bool] = []
    tokens = tokens_of(name)

    @settings(max_examples=150)
    @given(worlds(name))
    def look(world: World) -> None:
        num_calls.append(world.run().num_calls)
        pairs = list(zip(world.pieces, world.log, strict=True))
        was_cut.append(any(len(piece.token_ids) < len(asked.produced.token_ids) for piece, asked in pairs))
        closers = [tokens.to_bytes(p.token_ids[-1]) for p, a in pairs if a.who == "student" and p.token_ids]
        is_crossed.append(any(b">" in closer and not closer.endswith(b">") for closer in closers))

    look()
    assert sum(n >= 1 for n in num_calls) >= 20, num_calls
    assert sum(n >= 2 for n in num_calls) >= 8, num_calls
    assert sum(was_cut) >= 5, sum(was_cut)
    assert sum(is_crossed) >= 3, sum(is_crossed)


# ---- 1: the ids trained on are the ids the engines saw ----


@pytest.mark.parametrize("name", ALL)
@settings(max_examples=40)
@given(data=st.data())
def test_invariant_1_response_ids_are_what_the_engines_produced(name: str, data: st.DataObject) -> None:
    world = data.draw(worlds(name))
    trajectory = world.run()
    assert trajectory.response_ids == [i for segment in trajectory.segments for i in segment.token_ids]
    assert trajectory.response_ids == [i for piece in world.pieces for i in piece.token_ids]
    for piece, asked in zip(world.pieces, world.log, strict=True):
        produced = asked.produced
        assert piece.source == asked.who
        assert piece.token_ids == produced.token_ids[: len(piece.token_ids)], "a prefix of a sample"
        assert piece.logprobs == (produced.logprobs or [])[: len(piece.token_ids)], "and the log-probabilities of it"
        if asked.who == "teacher" or world.overrun == 0:
            assert piece.token_ids == produced.token_ids, "an engine that stops where told to is never cut"
        if len(piece.token_ids) < len(produced.token_ids):
            assert asked.stop, "only text past a command is cut"


# ---- 2: what each model sees ----


@pytest.mark.parametrize("name", ALL)
@settings(max_examples=40)
@given(data=st.data())
def test_invariant_2_contexts(name: str, data: st.DataObject) -> None:
    world = data.draw(worlds(name))
    world.run()
    tokens = tokens_of(name)
    context = list(world.prompt)
    turns: list[tuple[str, list[int]]] = []  # ended turns, and the student's current one
    for piece, asked in zip(world.pieces, world.log, strict=True):
        if asked.who == "student":
            assert asked.context == context, "the prompt and all segments, commands included"
        else:
            stripped = b"".join(
                COMMAND.sub(b"", tokens.join(ids)) if who == "student" else tokens.join(ids) for who, ids in turns
            )
            assert asked.context[: len(world.prompt)] == world.prompt
            assert tokens.join(asked.context[len(world.prompt) :]) == stripped, "without the commands' characters"
            check_teacher_context(turns, asked.context[len(world.prompt) :], tokens)
        context += piece.token_ids
        if turns and turns[-1][0] == piece.source:
            turns[-1][1].extend(piece.token_ids)
        else:
            turns.append((piece.source, list(piece.token_ids)))


def check_teacher_context(turns: list[tuple[str, list[int]]], context: list[int], tokens: TokenBytes) -> None:
    """Assert that tokens no command touches, and all of the teacher's, are in `context` with their ids, in order."""
    rest = list(context)
    for who, ids in turns:
        if who == "teacher":
            assert rest[: len(ids)] == ids, "the teacher's own tokens"
            rest = rest[len(ids) :]
            continue
        num_bytes = len(COMMAND.sub(b"", tokens.join(ids)))
        own: list[int] = []
        while rest and (len(tokens.join(own)) < num_bytes):
            own.append(rest.pop(0))
        check_stripped(ids, own, tokens)
    assert rest == []


@given(worlds("bpe"))
def test_invariant_2_with_single_byte_tokens(world: World) -> None:
    """The same world, said again by a byte tokenizer: no token is shared, so every id outside a command is kept."""
    tokens, eos = tokens_of("bpe"), tokenizer_called("bpe").eos_token_id
    byte = ByteTokenizer()
    student = ScriptedEngine(byte, [list(tokens.join(world.student)), "end"])
    teacher = ScriptedEngine(byte, [list(tokens.join([i for i in world.teacher if i != eos])), "more"])
    trajectory = asyncio.run(RelayDecoder(student, teacher, byte, world.config).run(list(tokens.join(world.prompt))))
    shown, expected = iter(teacher.requests), list(tokens.join(world.prompt))
    for segment in trajectory.segments:
        if segment.source == "teacher":
            assert next(shown) == expected
            expected += segment.token_ids
        else:
            expected += _without_commands(segment.token_ids)


def _without_commands(ids: list[int]) -> list[int]:
    eos = ByteTokenizer.eos_token_id
    return [*COMMAND.sub(b"", bytes(i for i in ids if i != eos)), *(i for i in ids if i == eos)]


# ---- 3: who is trained ----


@pytest.mark.parametrize("name", ALL)
@settings(max_examples=40)
@given(data=st.data())
def test_invariant_3_masks(name: str, data: st.DataObject) -> None:
    world = data.draw(worlds(name))
    trajectory = world.run()
    expected = [int(piece.source == "student") for piece in world.pieces for _ in piece.token_ids]
    assert trajectory.response_mask == expected
    assert len(trajectory.response_mask) == len(trajectory.response_ids) <= world.config.max_response_tokens
    logprobs = trajectory.logprobs
    assert logprobs is not None
    assert logprobs == [
        logprob if piece.source == "student" else 0.0 for piece in world.pieces for logprob in piece.logprobs or []
    ]
    assert trajectory.num_teacher_tokens == expected.count(0)
    assert all(a.source != b.source for a, b in itertools.pairwise(trajectory.segments)), "neighbours differ"


# ---- 4: limits ----


@pytest.mark.parametrize("name", ALL)
@settings(max_examples=40)
@given(data=st.data())
def test_invariant_4_a_call_delivers_at_most_what_is_allowed(name: str, data: st.DataObject) -> None:
    world = data.draw(worlds(name))
    trajectory = world.run()
    tokens, eos = tokens_of(name), tokenizer_called(name).eos_token_id
    limits = world.config
    assert trajectory.status is RelayStatus.COMPLETED
    assert sum(asked.who == "teacher" for asked in world.log) == trajectory.num_calls <= limits.max_calls
    written, turn = 0, b""
    delivered = []
    for i, (piece, asked) in enumerate(zip(world.pieces, world.log, strict=True)):
        left = limits.max_response_tokens - written
        if asked.who == "student":
            assert asked.max_tokens == left
            assert asked.stop in ((), ("</call>",))
            turn += tokens.join(piece.token_ids)
        else:
            *_, command = COMMAND.finditer(turn)  # the turn was cut after the command that is served
            num_requested = int(command.group(1))
            assert asked.max_tokens == min(num_requested, limits.max_tokens_per_call, left) > 0
            assert 0 < len(piece.token_ids) <= asked.max_tokens
            delivered.append((num_requested, len(piece.token_ids)))
            has_ended = piece.token_ids[-1] == eos
            assert eos not in piece.token_ids[:-1]
            assert not has_ended or i == len(world.pieces) - 1, "its EOS ends the response and is kept"
            turn = b""
        written += len(piece.token_ids)
    served = [call for call in trajectory.calls if call.outcome is CallOutcome.SERVED]
    assert [(call.num_requested, call.num_delivered) for call in served] == delivered
    assert trajectory.num_requested_tokens == sum(requested for requested, _ in delivered)
    assert trajectory.call_ratio == (sum(n for _, n in delivered) / written if written else 0.0), (
        "rho: delivered tokens"
    )


@pytest.mark.parametrize("name", ALL)
@settings(max_examples=40)
@given(data=st.data())
def test_invariant_4_zero_and_malformed_commands_change_nothing(name: str, data: st.DataObject) -> None:
    """The response is that of the same student alone."""
    world = data.draw(worlds(name, digits=(b"0", b"00")))
    relayed, alone = world.run(), world.run(has_teacher=False)
    assert relayed.segments == alone.segments
    assert relayed.status is alone.status is RelayStatus.COMPLETED
    assert (relayed.num_calls, relayed.num_requested_tokens, relayed.call_ratio) == (0, 0, 0.0)
    assert relayed.num_malformed_calls == alone.num_malformed_calls


@pytest.mark.parametrize("name", ALL)
@settings(max_examples=40)
@given(data=st.data())
def test_invariant_4_calls_past_max_calls_change_nothing(name: str, data: st.DataObject) -> None:
    world = data.draw(worlds(name, max_calls=0))
    relayed, alone = world.run(), world.run(has_teacher=False)
    assert relayed.segments == alone.segments
    assert (relayed.num_calls, relayed.num_requested_tokens, relayed.call_ratio) == (0, 0, 0.0)


@pytest.mark.parametrize("name", ALL)
@settings(max_examples=40)
@given(data=st.data())
def test_invariant_4_every_command_is_accounted_for(name: str, data: st.DataObject) -> None:
    """Each close the student wrote is one record, but for a command that filled the response to its last token."""
    world = data.draw(worlds(name))
    trajectory = world.run()
    tokens = tokens_of(name)
    turns = [tokens.join(segment.token_ids) for segment in trajectory.segments if segment.source == "student"]
    num_commands = sum(len(COMMAND.findall(turn)) for turn in turns)
    assert trajectory.num_malformed_calls == sum(turn.count(b"</call>") for turn in turns) - num_commands
    num_recorded = len(trajectory.calls) - trajectory.num_malformed_calls
    is_full = len(trajectory.response_ids) == world.config.max_response_tokens
    assert num_commands - int(is_full) <= num_recorded <= num_commands


# ---- 5: rewards by group ----

GROUPS = st.lists(
    st.tuples(st.booleans(), st.booleans(), st.floats(0, 1)).map(lambda s: (s[0], s[1], s[2] if s[1] else 0.0)),
    max_size=8,
)


def reward_group(group: list[tuple[bool, bool, float]]) -> tuple[list[float], list[float]]:
    correct, called, rho = ([sample[i] for sample in group] for i in range(3))
    return simple_reward(correct, rho), difficulty_aware_reward(correct, called, rho)


@given(GROUPS, st.randoms(use_true_random=False))
def test_invariant_5_rewards_follow_their_samples(group: list, rng: random.Random) -> None:
    order = list(range(len(group)))
    rng.shuffle(order)
    rewards = reward_group(group)
    shuffled = reward_group([group[i] for i in order])
    for kind in (0, 1):
        assert shuffled[kind] == [rewards[kind][i] for i in order]
        assert len(rewards[kind]) == len(group)


@given(st.lists(GROUPS, min_size=1, max_size=4), st.integers(0, 3), GROUPS)
def test_invariant_5_no_other_group_matters(batch: list[list], which: int, other: list) -> None:
    """A batch with one group exchanged rewards all the others as before, and each as if it were alone."""
    which %= len(batch)
    exchanged = [*batch[:which], other, *batch[which + 1 :]]
    for before, after in zip(
        [(i, reward_group(g)) for i, g in enumerate(batch)],
        [(i, reward_group(g)) for i, g in enumerate(exchanged)],
        strict=True,
    ):
        assert before == after or before[0] == which
    assert [reward_group(g) for g in reversed(batch)] == [reward_group(g) for g in batch][::-1]


@given(GROUPS)
def test_invariant_5_scenarios_by_the_papers_words(group: list) -> None:
    """The rewards again, written from the table of 3.2.3."""
    is_solvable = any(correct and not called for correct, called, _ in group)
    is_hopeless = not any(correct for correct, _, _ in group)
    for (correct, called, rho), reward in zip(group, reward_group(group)[1], strict=True):
        if is_solvable:
            expected = (1.0 - rho if called else 1.5) if correct else 0.0
        elif is_hopeless:
            expected = rho if called else 0.0
        else:
            expected = 1.0 - rho if correct else (0.0 if called else -1.0)
        assert reward == expected


# ---- 6: a teacher that fails ----

TIMEOUT_S = 0.02
GIVE_UP_S = 3.0
VOCAB_SIZE = 257


class Teacher:
    """Answers with whatever a function gives, raises or awaits."""

    def __init__(self, answer: Callable[[], Any]):
        self.answer = answer
        self.num_requests = 0

    async def generate(self, prompt_ids: list[int], **_: Any) -> Any:
        self.num_requests += 1
        answer = self.answer()
        return await answer if asyncio.iscoroutine(answer) else answer


class RaisesAtOnce(Teacher):
    """A plain function, not a coroutine."""

    def generate(self, prompt_ids: list[int], **_: Any) -> Any:  # type: ignore[override]
        raise ConnectionError("no coroutine was ever made")


class WantsOtherArguments(Teacher):
    """Another version's signature."""

    async def generate(self, prompt_ids: list[int], budget: int) -> Any:  # type: ignore[override]
        raise NotImplementedError


def raises(error: BaseException) -> Callable[[], Any]:
    def answer() -> Any:
        raise error

    return answer


async def stubborn() -> Generation:
    """Does not hear its cancellation, as an engine that retries on every exception does not."""
    ends_at = time.monotonic() + 2 * GIVE_UP_S
    while time.monotonic() < ends_at:
        try:
            await asyncio.sleep(ends_at - time.monotonic())
        except asyncio.CancelledError:
            continue
    return Generation([120], None, "length")


def gives(token_ids: Any, logprobs: Any = None, reason: Any = "length") -> Callable[[], Any]:
    return lambda: Generation(token_ids, logprobs, reason)


BAD_TEACHERS: dict[str, Callable[[], Teacher]] = {
    # dead
    "EngineError": lambda: Teacher(raises(EngineError("down"))),
    "another library's error": lambda: Teacher(raises(ConnectionResetError("reset"))),
    "KeyError": lambda: Teacher(raises(KeyError("choices"))),
    "AssertionError": lambda: Teacher(raises(AssertionError())),
    "TimeoutError of its own": lambda: Teacher(raises(TimeoutError())),
    "MemoryError": lambda: Teacher(raises(MemoryError())),
    "StopIteration": lambda: Teacher(raises(StopIteration())),
    "ExceptionGroup": lambda: Teacher(raises(ExceptionGroup("two", [ValueError(), OSError()]))),
    "CancelledError: what it awaited was cancelled": lambda: Teacher(raises(asyncio.CancelledError())),
    "it raises before there is a coroutine": lambda: RaisesAtOnce(lambda: None),
    "it takes other arguments": lambda: WantsOtherArguments(lambda: None),
    # slow
    "it sleeps": lambda: Teacher(lambda: asyncio.sleep(60)),
    "it sleeps and does not hear its cancellation": lambda: Teacher(stubborn),
    # rubbish
    "None": lambda: Teacher(lambda: None),
    "a string": lambda: Teacher(lambda: "text"),
    "a list of ids": lambda: Teacher(lambda: [120, 121]),
    "a pair": lambda: Teacher(lambda: ([120], None)),
    "an object": lambda: Teacher(object),
    "no ids": lambda: Teacher(gives(None)),
    "no ids and an end": lambda: Teacher(gives(None, None, "eos")),
    "ids as a string": lambda: Teacher(gives("xy")),
    "ids as an empty string": lambda: Teacher(gives("", None, "eos")),
    "ids as a number": lambda: Teacher(gives(5)),
    "ids as a dict": lambda: Teacher(gives({120: 121})),
    "an empty list": lambda: Teacher(gives([])),
    "an empty list and a stop": lambda: Teacher(gives([], None, "stop")),
    "an empty list and an end without an EOS": lambda: Teacher(gives([], [], "eos")),
    "a string among the ids": lambda: Teacher(gives([120, "x"])),
    "None among the ids": lambda: Teacher(gives([120, None])),
    "a float among the ids": lambda: Teacher(gives([120.0])),
    "a bool among the ids": lambda: Teacher(gives([True])),
    "a list among the ids": lambda: Teacher(gives([[120]])),
    "a negative id": lambda: Teacher(gives([120, -1])),
    "an id past the vocabulary": lambda: Teacher(gives([VOCAB_SIZE])),
    "a huge id": lambda: Teacher(gives([10**30])),
    "too few log-probabilities": lambda: Teacher(gives([120, 121], [-0.5])),
    "too many log-probabilities": lambda: Teacher(gives([120], [-0.5, -0.5])),
    "a log-probability that is not a list": lambda: Teacher(gives([120], -0.5)),
}


def run_with(teacher: Any, on_teacher_failure: str, *, max_calls: int = 2) -> RelayTrajectory:
    """A student that calls twice; the run must end long before `GIVE_UP_S`."""
    byte = ByteTokenizer()
    config = RelayConfig(
        max_response_tokens=100,
        max_calls=max_calls,
        max_tokens_per_call=5,
        on_teacher_failure=on_teacher_failure,  # type: ignore[arg-type]
        teacher_timeout_s=TIMEOUT_S,
        vocab_size=VOCAB_SIZE,
    )
    decoder = RelayDecoder(ScriptedEngine(byte, ["a<call>3</call>b<call>4</call>c"]), teacher, byte, config)

    async def run() -> RelayTrajectory:
        task = asyncio.ensure_future(decoder.run([1, 2]))
        done, _ = await asyncio.wait({task}, timeout=GIVE_UP_S)
        assert done, f"the run hangs: {GIVE_UP_S} s on a teacher that has {TIMEOUT_S} s"
        try:
            return task.result()
        except asyncio.CancelledError:
            raise AssertionError("the run was cancelled by its teacher") from None

    loop = asyncio.new_event_loop()  # asyncio.run would wait for a task that does not hear its cancellation
    try:
        return loop.run_until_complete(run())
    finally:
        for task in asyncio.all_tasks(loop):
            task._log_destroy_pending = False  # type: ignore[attr-defined]
        loop.close()


@pytest.mark.parametrize("make_teacher", BAD_TEACHERS.values(), ids=BAD_TEACHERS.keys())
def test_invariant_6_continue_goes_on_alone(make_teacher: Callable[[], Teacher]) -> None:
    trajectory = run_with(make_teacher(), "continue")
    text = b"a<call>3</call>b<call>4</call>c"
    assert trajectory.response_ids == [*text, ByteTokenizer.eos_token_id], "the student's tokens alone"
    assert set(trajectory.response_mask) == {1}
    assert trajectory.status is RelayStatus.COMPLETED
    assert (trajectory.num_failed_calls, trajectory.num_calls, trajectory.num_requested_tokens) == (2, 0, 0)
    assert all(call.error for call in trajectory.calls), "why is on record"
    assert trajectory.call_ratio == 0.0


@pytest.mark.parametrize("make_teacher", BAD_TEACHERS.values(), ids=BAD_TEACHERS.keys())
def test_invariant_6_drop_is_a_status(make_teacher: Callable[[], Teacher]) -> None:
    trajectory = run_with(make_teacher(), "drop")
    assert trajectory.status is RelayStatus.TEACHER_FAILED
    assert trajectory.error
    assert trajectory.response_ids == [*b"a<call>3</call>"]
    assert trajectory.num_failed_calls == 1


@pytest.mark.parametrize("make_teacher", BAD_TEACHERS.values(), ids=BAD_TEACHERS.keys())
def test_invariant_6_fail_raises(make_teacher: Callable[[], Teacher]) -> None:
    with pytest.raises(TeacherError):
        run_with(make_teacher(), "fail")


GOOD_ODDITIES = [
    # answer, teacher's tokens of the first call, has ended, why
    (gives([120] * 9), [120] * 3, False, "too many ids are cut"),
    (gives([120] * 9, [-0.5] * 9, "eos"), [120] * 3, False, "an end past the limit is none"),
    (gives([120, 256, 121]), [120, 256], True, "what follows an EOS is cut"),
    (gives([120, 120, 120, 256]), [120] * 3, False, "an EOS past the limit is none"),
    (gives([120, 120, 256], None, "stop"), [120, 120, 256], True, "an EOS that the engine calls a stop"),
    (gives([120], None, "stop"), [120], False, "shorter than asked for"),
    (gives((120, 121)), [120, 121], False, "a tuple"),
    (gives([0, 255]), [0, 255], False, "the ends of the vocabulary"),
]


@pytest.mark.parametrize(("answer", "token_ids", "has_ended", "why"), GOOD_ODDITIES)
def test_invariant_6_what_is_odd_but_usable(
    answer: Callable[[], Any], token_ids: list[int], has_ended: bool, why: str
) -> None:
    trajectory = run_with(Teacher(answer), "fail", max_calls=1)
    assert list(trajectory.segments[1].token_ids) == token_ids, why
    assert (len(trajectory.segments) == 2) is has_ended, why


@settings(max_examples=40)
@given(
    st.lists(st.sampled_from(sorted(set(BAD_TEACHERS) - {"it sleeps and does not hear its cancellation"})), max_size=3)
)
def test_invariant_6_any_run_of_failures_leaves_the_students_tokens_alone(names: list[str]) -> None:
    """Failures of any kind in a row, then a teacher that works: what failed is gone without a trace in the ids."""
    byte = ByteTokenizer()
    teachers: list[Any] = [BAD_TEACHERS[name]() for name in names]

    class Moody:
        async def generate(self, prompt_ids: list[int], **arguments: Any) -> Any:
            if teachers:
                return await teachers.pop(0).generate(prompt_ids, **arguments)
            return Generation([120] * arguments["max_tokens"], None, "length")

    config = RelayConfig(200, max_calls=4, max_tokens_per_call=5, teacher_timeout_s=TIMEOUT_S, vocab_size=VOCAB_SIZE)
    student = ScriptedEngine(byte, ["a<call>2</call>" * 4])
    trajectory = asyncio.run(RelayDecoder(student, Moody(), byte, config).run([1]))
    failed, served = b"a<call>2</call>" * len(names), b"a<call>2</call>xx" * (4 - len(names))
    assert trajectory.response_ids == [*failed, *served, byte.eos_token_id]
    assert (trajectory.num_failed_calls, trajectory.num_calls) == (len(names), 4 - len(names))


def test_invariant_6_a_dead_teacher_costs_a_bounded_time() -> None:
    byte = ByteTokenizer()
    teacher = Teacher(lambda: asyncio.sleep(60))
    config = RelayConfig(2000, max_calls=3, max_tokens_per_call=5, teacher_timeout_s=TIMEOUT_S)
    student = ScriptedEngine(byte, ["<call>2</call>" * 50])
    trajectory = asyncio.run(RelayDecoder(student, teacher, byte, config).run([1]))
    assert teacher.num_requests == trajectory.num_failed_calls == 3, "failed calls count against max_calls"


@pytest.mark.parametrize("on_teacher_failure", ["continue", "drop", "fail"])
async def test_invariant_6_a_run_that_is_cancelled_from_outside_ends(on_teacher_failure: str) -> None:
    byte = ByteTokenizer()
    config = RelayConfig(100, 2, 5, on_teacher_failure=on_teacher_failure)  # type: ignore[arg-type]
    teacher = Teacher(lambda: asyncio.sleep(60))
    decoder = RelayDecoder(ScriptedEngine(byte, ["a<call>3</call>b"]), teacher, byte, config)
    task = asyncio.create_task(decoder.run([1]))
    while not teacher.num_requests:
        await asyncio.sleep(0.001)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await asyncio.wait_for(task, GIVE_UP_S)


# ---- 7: no barrier ----


async def test_invariant_7_a_slow_teacher_holds_up_its_own_trajectory_alone() -> None:
    """The first trajectory's teacher answers only once the second trajectory has ended."""
    byte = ByteTokenizer()
    has_ended = asyncio.Event()

    class Waits:
        async def generate(self, prompt_ids: list[int], **arguments: Any) -> Generation:
            if prompt_ids[0] == 1:
                await has_ended.wait()
            return Generation([120] * arguments["max_tokens"], None, "length")

    student = ScriptedEngine(byte, lambda ids: "a<call>2</call>" if len(ids) < 10 else "b")
    student_ends = RelayDecoder(student, Waits(), byte, RelayConfig(40, 2, 5, teacher_timeout_s=GIVE_UP_S))
    slow = asyncio.create_task(student_ends.run([1]))
    await asyncio.sleep(0)
    quick = await asyncio.wait_for(student_ends.run([2]), GIVE_UP_S)
    assert not slow.done()
    has_ended.set()
    assert (await slow).segments == quick.segments
    assert quick.num_calls == 1


async def test_invariant_7_slow_students_hold_up_nobody_either() -> None:
    byte = ByteTokenizer()
    has_ended = asyncio.Event()

    class Waits(ScriptedEngine):
        async def generate(self, prompt_ids: list[int], **arguments: Any) -> Generation:
            if prompt_ids[0] == 1:
                await has_ended.wait()
            return await super().generate(prompt_ids, **arguments)

    decoder = RelayDecoder(Waits(byte, lambda ids: "a"), None, byte, RelayConfig(40, 2, 5))
    slow = asyncio.create_task(decoder.run([1]))
    await asyncio.sleep(0)
    await asyncio.wait_for(decoder.run([2]), GIVE_UP_S)
    assert not slow.done()
    has_ended.set()
    assert (await slow).status is RelayStatus.COMPLETED
