"""One response from prompt to end: tables of scripts, and the odd engine. The invariants are in test_invariants.py."""

import asyncio
import dataclasses
from collections import Counter
from collections.abc import Callable
from typing import Any

import pytest

from relay_verl.decoder import RelayConfig, RelayDecoder
from relay_verl.engines import Generation, ScriptedEngine
from relay_verl.errors import EngineError, TeacherError
from relay_verl.policies import TeacherAlone, TeacherFree, make_policy
from relay_verl.policy_base import Interruption, Policy
from relay_verl.types import CallOutcome, RelayStatus, RelayTrajectory
from tests.helpers.tokenizers import ByteTokenizer, bpe, bpe_ids

TOKENIZER = ByteTokenizer()
EOS = TOKENIZER.eos_token_id
PROMPT = TOKENIZER.encode("Q: ")


def config(**values: Any) -> RelayConfig:
    return RelayConfig(**{"max_response_tokens": 200, "max_calls": 3, "max_tokens_per_call": 50, **values})


def write(trajectory: RelayTrajectory) -> list[tuple[str, str]]:
    """The segments as (first letter of the writer, text), '$' for the EOS."""
    return [
        (segment.source[0], "".join("$" if i == EOS else chr(i) for i in segment.token_ids))
        for segment in trajectory.segments
    ]


def relay(student: list, teacher: list | None, **values: Any) -> tuple[RelayTrajectory, RelayDecoder]:
    """A run over scripts with single-byte tokens."""
    decoder = RelayDecoder(
        ScriptedEngine(TOKENIZER, student),
        None if teacher is None else ScriptedEngine(TOKENIZER, teacher),
        TOKENIZER,
        config(**values),
    )
    return asyncio.run(decoder.run(PROMPT)), decoder


class Engine:
    """Answers by a function of the context and the arguments, and keeps the arguments."""

    def __init__(self, answer: Callable[..., Any]):
        self.answer = answer
        self.requests: list[dict[str, Any]] = []

    async def generate(self, prompt_ids: list[int], **arguments: Any) -> Any:
        self.requests.append({"prompt_ids": prompt_ids, **arguments})
        answer = self.answer(prompt_ids, **arguments)
        return await answer if asyncio.iscoroutine(answer) else answer


# ---- what is written ----

C2, C0 = "<call>2</call>", "<call>0</call>"
SCRIPT_CASES = [
    # student, teacher, config, segments, outcomes, why
    (["hi"], [], {}, [("s", "hi$")], [], "no call"),
    ([f"a{C2}", "b"], ["xy"], {}, [("s", f"a{C2}"), ("t", "xy"), ("s", "b$")], ["served"], "one call"),
    ([f"a{C2}{C2}b"], ["xyzw"], {}, [("s", f"a{C2}"), ("t", "xy"), ("s", C2), ("t", "zw"), ("s", "b$")],
     ["served", "served"], "one call right after the other"),
    ([f"a{C2}b"], ["x"], {}, [("s", f"a{C2}"), ("t", "x$")], ["served"], "the teacher's EOS ends it and is kept"),
    ([f"a{C2}b"], [], {}, [("s", f"a{C2}"), ("t", "$")], ["served"], "also alone"),
    (["a<call>9</call>b"], ["xyzw"], {"max_tokens_per_call": 3}, [("s", "a<call>9</call>"), ("t", "xyz"), ("s", "b$")],
     ["served"], "the cap"),
    (["a<call>9</call>b"], ["xyzw"], {"max_response_tokens": 18}, [("s", "a<call>9</call>"), ("t", "xyz")],
     ["served"], "what is left of the response"),
    (["a<call>9</call>b"], ["xyzw"], {"max_response_tokens": 15}, [("s", "a<call>9</call>")], None,
     "nothing is left: the teacher is not asked"),
    (["abcdef"], [], {"max_response_tokens": 3}, [("s", "abc")], [], "the student's own limit"),
    ([f"a{C0}b"], ["xy"], {}, [("s", f"a{C0}b$")], ["zero"], "n = 0"),
    (["a<call>x</call>b"], ["xy"], {}, [("s", "a<call>x</call>b$")], ["malformed"], "malformed"),
    (["a</call>b</call>"], ["xy"], {}, [("s", "a</call>b</call>$")], ["malformed", "malformed"], "closes alone"),
    ([f"{C0}{C0}{C0}<call></call>{C2}b"], ["xy"], {"max_calls": 1},
     [("s", f"{C0}{C0}{C0}<call></call>{C2}"), ("t", "xy"), ("s", "b$")],
     ["zero", "zero", "zero", "served", "malformed"], "what costs nothing uses up no call"),
    ([f"a{C2}{C2}b"], ["xyzw"], {"max_calls": 1}, [("s", f"a{C2}"), ("t", "xy"), ("s", f"{C2}b$")],
     ["served", "over_limit"], "past max_calls"),
    ([f"a{C2}b"], ["xy"], {"max_calls": 0}, [("s", f"a{C2}b$")], ["over_limit"], "calls forbidden"),
    ([f"a{C2}b"], None, {}, [("s", f"a{C2}b$")], ["over_limit"], "no teacher"),
    (["<call><call>2</call>b"], ["xy"], {}, [("s", "<call><call>2</call>"), ("t", "xy"), ("s", "b$")],
     ["served"], "a command inside an opening"),
    ([f"a{C2}b"], [f"{C0}</call>"], {}, [("s", f"a{C2}"), ("t", "<c"), ("s", "b$")], ["served"],
     "what the teacher writes is text"),
    (["a<call>99999999999999999999</call>b"], ["x" * 50], {},
     [("s", "a<call>99999999999999999999</call>"), ("t", "x" * 50), ("s", "b$")], ["served"], "a huge n is capped"),
    ([f"a{C2}", "</call>", "b"], [EngineError("down"), "xy"], {}, [("s", f"a{C2}</call>b$")], ["failed", "malformed"],
     "a failed call: the student continues"),
    ([f"{C2}{C2}{C2}b"], [EngineError("1"), EngineError("2"), "xy"], {"max_calls": 2}, [("s", f"{C2}{C2}{C2}b$")],
     ["failed", "failed", "over_limit"], "a failed call uses up a call"),
]  # fmt: skip


@pytest.mark.parametrize(
    ("student", "teacher", "values", "segments", "outcomes", "why"),
    SCRIPT_CASES,
    ids=[case[-1] for case in SCRIPT_CASES],
)
def test_scripts(
    student: list, teacher: list | None, values: dict, segments: list, outcomes: list[str] | None, why: str
) -> None:
    trajectory, _ = relay(student, teacher, **values)
    assert write(trajectory) == segments, why
    assert trajectory.status is RelayStatus.COMPLETED
    assert trajectory.error == ""
    if outcomes is not None:
        assert [call.outcome for call in trajectory.calls] == outcomes, why
    assert trajectory.num_calls == trajectory.count(CallOutcome.SERVED)


def test_what_each_model_is_shown() -> None:
    _, decoder = relay([f"a{C2}", f"b{C0}c{C2}", "d"], [f"{C2}"], max_calls=2)
    shown = [TOKENIZER.decode(ids) for ids in decoder.student.requests]
    full = [
        "Q: ",
        f"Q: a{C2}<c",
        f"Q: a{C2}<cb{C0}",
        f"Q: a{C2}<cb{C0}c{C2}al",
    ]
    assert shown == full, "the student sees everything, commands included"
    assert [TOKENIZER.decode(ids) for ids in decoder.teacher.requests] == ["Q: a", "Q: a<cbc"], (
        "the teacher sees no command of the student's, served or not, and its own tokens as they are"
    )


def test_commands_that_are_not_the_students_are_shown_to_the_teacher() -> None:
    decoder = RelayDecoder(
        ScriptedEngine(TOKENIZER, [f"a{C2}b"]), ScriptedEngine(TOKENIZER, ["xy"]), TOKENIZER, config()
    )
    asyncio.run(decoder.run(TOKENIZER.encode(f"Write {C2}: ")))
    assert TOKENIZER.decode(decoder.teacher.requests[0]) == f"Write {C2}: a", "the prompt is not what a model wrote"


def test_a_call_s_record() -> None:
    trajectory, _ = relay(["ab<call>9</call>", "c"], ["xyz"], max_tokens_per_call=3)
    [call] = trajectory.calls
    assert (call.num_requested, call.num_delivered, call.position, call.error) == (9, 3, 16, "")
    assert 0.0 <= call.latency_s < 5.0
    assert (trajectory.num_requested_tokens, trajectory.num_teacher_tokens) == (9, 3)
    assert trajectory.call_ratio == pytest.approx(3 / 21), "16 by the student, 3 by the teacher, 'c' and its EOS"


def test_a_failed_call_s_record() -> None:
    trajectory, _ = relay(["ab<call>9</call>", "c"], [EngineError("on fire")])
    [call] = trajectory.calls
    assert (call.num_requested, call.num_delivered, call.position) == (9, 0, 16)
    assert "on fire" in call.error
    assert (trajectory.num_requested_tokens, trajectory.num_calls, trajectory.call_ratio) == (0, 0, 0.0)
    assert trajectory.num_failed_calls == 1


def test_drop_keeps_what_was_written_and_says_why() -> None:
    trajectory, decoder = relay(["ab<call>9</call>", "c"], [EngineError("on fire")], on_teacher_failure="drop")
    assert trajectory.status is RelayStatus.TEACHER_FAILED
    assert "on fire" in trajectory.error
    assert write(trajectory) == [("s", "ab<call>9</call>")]
    assert len(decoder.student.requests) == 1


def test_fail_raises_with_the_cause() -> None:
    with pytest.raises(TeacherError, match="on fire") as error:
        relay(["ab<call>9</call>", "c"], [EngineError("on fire")], on_teacher_failure="fail")
    assert isinstance(error.value.__cause__, EngineError)


def test_logprobs_of_a_students_turn_in_pieces_are_joined() -> None:
    student = ScriptedEngine(TOKENIZER, [f"a{C0}b"], logprob=-0.25)
    trajectory = asyncio.run(RelayDecoder(student, ScriptedEngine(TOKENIZER), TOKENIZER, config()).run(PROMPT))
    assert len(student.requests) == 2, "the engine stopped at the command"
    assert len(trajectory.segments) == 1
    assert trajectory.logprobs == [-0.25] * len(trajectory.response_ids)


def test_logprobs_that_are_unknown_for_a_piece_are_unknown_for_the_turn() -> None:
    pieces = [Generation([*b"</call>"], [-0.5] * 7, "stop"), Generation([97, EOS], None, "eos")]
    student = Engine(lambda prompt_ids, **_: pieces.pop(0))
    trajectory = asyncio.run(RelayDecoder(student, ScriptedEngine(TOKENIZER), TOKENIZER, config()).run(PROMPT))
    assert trajectory.segments[0].logprobs is None
    assert trajectory.logprobs is None


def test_an_engine_that_writes_past_a_served_command_is_cut_after_it() -> None:
    late = Generation([*b"a<call>2</call>bc"], [float(-i) for i in range(17)], "length")
    pieces = [late, Generation([EOS], [-9.0], "eos")]
    student = Engine(lambda prompt_ids, **_: pieces.pop(0))
    decoder = RelayDecoder(student, ScriptedEngine(TOKENIZER, ["xy", "z"]), TOKENIZER, config())
    trajectory = asyncio.run(decoder.run(PROMPT))
    assert write(trajectory) == [("s", f"a{C2}"), ("t", "xy"), ("s", "$")]
    assert trajectory.segments[0].logprobs == late.logprobs[:15]


def test_an_eos_right_after_a_command_does_not_stop_the_call() -> None:
    pieces = [Generation([*C2.encode(), EOS], None, "eos"), Generation([EOS], None, "eos")]
    student = Engine(lambda prompt_ids, **_: pieces.pop(0))
    trajectory = asyncio.run(
        RelayDecoder(student, ScriptedEngine(TOKENIZER, ["xy", "z"]), TOKENIZER, config()).run(PROMPT)
    )
    assert write(trajectory) == [("s", C2), ("t", "xy"), ("s", "$")]


def test_text_that_shares_the_commands_last_token_is_kept_and_shown() -> None:
    close = bpe_ids(b"</call>\n")
    student = ScriptedEngine(bpe(), [[*bpe_ids(b" so", b"<call>", b"2"), *close], bpe_ids(b"x")])
    teacher = ScriptedEngine(bpe(), [bpe_ids(b"x", b"x"), "later"])
    trajectory = asyncio.run(RelayDecoder(student, teacher, bpe(), config()).run(bpe_ids(b".")))
    assert trajectory.segments[0].token_ids[-1:] == close, "a sampled token is kept whole"
    assert student.requests[1] == [*bpe_ids(b".", b" so", b"<call>", b"2"), *close, *bpe_ids(b"x", b"x")]
    assert teacher.requests == [bpe_ids(b".", b" so", b"\n")]


def test_a_close_completed_over_two_requests_is_seen() -> None:
    """The first request stops at a malformed close whose token holds the '<' of the next command."""
    first = bpe_ids(b"<call>", b"</call", b"><")
    student = ScriptedEngine(bpe(), [first, bpe_ids(b"c", b"a", b"l", b"l", b">2", b"</call>"), bpe_ids(b"x")])
    trajectory = asyncio.run(
        RelayDecoder(student, ScriptedEngine(bpe(), [bpe_ids(b"x", b"."), "later"]), bpe(), config()).run([])
    )
    assert [segment.source for segment in trajectory.segments] == ["student", "teacher", "student"]
    assert trajectory.segments[1].token_ids == bpe_ids(b"x", b".")
    assert [call.outcome for call in trajectory.calls] == ["served", "malformed"]


# ---- what engines are asked ----


def test_requests_to_engines() -> None:
    texts = [f"a{C2}", f"b{C2}", "c"]

    def write_next(prompt_ids: list[int], **arguments: Any) -> Generation:
        ids = TOKENIZER.encode(texts.pop(0))
        return Generation(ids if texts else [*ids, EOS], None, "stop" if texts else "eos")

    student = Engine(write_next)
    teacher = Engine(lambda prompt_ids, max_tokens, **_: Generation([120] * max_tokens, None, "length"))
    decoder = RelayDecoder(student, teacher, TOKENIZER, config(max_calls=1, teacher_sampling={"temperature": 0.3}))
    asyncio.run(decoder.run(PROMPT, sampling={"temperature": 1.0, "logprobs": True}, request_id="r1"))
    assert [r["stop"] for r in student.requests] == [("</call>",), (), ()], "no one listens past max_calls"
    assert [r["max_tokens"] for r in student.requests] == [200, 200 - 17, 200 - 32]
    assert [r["sampling"] for r in student.requests] == [{"temperature": 1.0, "logprobs": True}] * 3
    assert [r["sampling"] for r in teacher.requests] == [{"temperature": 0.3}]
    assert teacher.requests[0].get("stop", ()) == ()
    assert {r["request_id"] for r in student.requests + teacher.requests} == {"r1"}, "so that a prefix cache serves it"


def test_request_ids_are_made_up_and_differ() -> None:
    student = Engine(lambda prompt_ids, **_: Generation([EOS], None, "eos"))
    decoder = RelayDecoder(student, None, TOKENIZER, config())
    for _ in range(2):
        asyncio.run(decoder.run(PROMPT))
    first, second = (request["request_id"] for request in student.requests)
    assert first
    assert first != second


def test_the_teachers_default_temperature_is_the_released_services() -> None:
    assert config().teacher_sampling == {"temperature": 0.7}


def test_a_policy_that_forbids_calls() -> None:
    student = Engine(lambda prompt_ids, **_: Generation([*C2.encode(), EOS], None, "eos"))
    teacher = ScriptedEngine(TOKENIZER, ["xy"])
    decoder = RelayDecoder(student, teacher, TOKENIZER, config())
    trajectory = asyncio.run(decoder.run(PROMPT, sampling={"top_p": 0.9}, policy=TeacherFree()))
    assert student.requests[0]["sampling"] == {"top_p": 0.9, "bad_words": ["<call>", "</call>"]}
    assert student.requests[0]["stop"] == ()
    assert teacher.requests == []
    assert trajectory.num_calls == 0


class Halved(Policy):
    """Asks for half of what the student wrote."""

    def num_tokens(self, call: Any) -> int:
        return call.num_tokens // 2


def test_a_policy_decides_how_many_tokens() -> None:
    student = ScriptedEngine(TOKENIZER, ["<call>1</call><call>6</call>a"])
    decoder = RelayDecoder(student, ScriptedEngine(TOKENIZER, ["xyzw"]), TOKENIZER, config())
    trajectory = asyncio.run(decoder.run(PROMPT, policy=Halved()))
    assert write(trajectory) == [("s", "<call>1</call><call>6</call>"), ("t", "xyz"), ("s", "a$")]
    assert [call.outcome for call in trajectory.calls] == ["zero", "served"]


# ---- streaming ----


async def test_stream_yields_the_pieces_as_they_come() -> None:
    student = ScriptedEngine(TOKENIZER, [f"a{C2}", f"b{C0}", "c"])
    stream = RelayDecoder(student, ScriptedEngine(TOKENIZER, ["xy", "z"]), TOKENIZER, config()).stream(PROMPT)
    pieces = []
    async for piece in stream:
        pieces.append((piece.source, TOKENIZER.decode(piece.token_ids)))
        assert [i for _, text in pieces for i in TOKENIZER.encode(text)] == [
            i for i in stream.trajectory().response_ids if i != EOS
        ], "the trajectory so far is what was yielded"
    assert pieces == [("student", f"a{C2}"), ("teacher", "xy"), ("student", f"b{C0}"), ("student", "c")]
    assert len(stream.trajectory().segments) == 3, "two pieces of one turn are one segment"


async def test_a_piece_is_yielded_before_the_next_engine_is_asked() -> None:
    teacher = ScriptedEngine(TOKENIZER, ["xy", "z"])
    stream = RelayDecoder(ScriptedEngine(TOKENIZER, [f"a{C2}b"]), teacher, TOKENIZER, config()).stream(PROMPT)
    async for piece in stream:
        assert piece.source == "student"
        assert teacher.requests == []
        break


async def test_one_decoder_serves_many_trajectories_at_a_time() -> None:
    """Engines that answer by the context alone give each trajectory what it gets when it is alone."""

    async def student(prompt_ids: list[int], **_: Any) -> Generation:
        await asyncio.sleep(0.001 * (prompt_ids[0] % 3))
        if prompt_ids.count(120) >= 3:
            return Generation([EOS], [-1.0], "eos")
        ids = [*str(prompt_ids[0]).encode(), *b"<call>1</call>"]
        return Generation(ids, [-1.0] * len(ids), "stop")

    async def teacher(prompt_ids: list[int], **_: Any) -> Generation:
        await asyncio.sleep(0.001 * (prompt_ids[0] % 2))
        return Generation([120], None, "length")

    decoder = RelayDecoder(Engine(student), Engine(teacher), TOKENIZER, config())
    alone = [await decoder.run([i]) for i in range(8)]
    together = await asyncio.gather(*(decoder.run([i]) for i in range(8)))
    assert [t.segments for t in together] == [t.segments for t in alone]
    assert [t.num_calls for t in together] == [3] * 8


async def test_the_callers_prompt_is_left_alone() -> None:
    prompt = list(PROMPT)
    trajectory = await RelayDecoder(ScriptedEngine(TOKENIZER, ["a"]), None, TOKENIZER, config()).run(prompt)
    assert prompt == PROMPT == trajectory.prompt_ids


# ---- the student's engine ----


def rubbish(answer: Any) -> Callable[..., Any]:
    return lambda prompt_ids, **_: answer


async def _sleep(prompt_ids: list[int], **_: Any) -> None:
    await asyncio.sleep(20)


def _raise(error: BaseException) -> Callable[..., Any]:
    def answer(prompt_ids: list[int], **_: Any) -> None:
        raise error

    return answer


STUDENT_FAILURES = [
    # answer of the second turn, why
    (_raise(EngineError("down")), "it says so"),
    (_raise(ConnectionError("reset")), "an error of another library"),
    (_sleep, "past the deadline"),
    (rubbish(None), "no generation"),
    (rubbish([1, 2]), "ids without a reason"),
    (rubbish(Generation([], None, "stop")), "no token and no end: it would loop for ever"),
    (rubbish(Generation([97], [], "eos")), "log-probabilities that do not line up"),
    (rubbish(Generation(None, None, "length")), "no ids"),  # type: ignore[arg-type]
    (rubbish(Generation([-1], None, "eos")), "no token id"),
]


@pytest.mark.parametrize(("answer", "why"), STUDENT_FAILURES, ids=[why for _, why in STUDENT_FAILURES])
def test_a_failing_student_is_a_status(answer: Callable[..., Any], why: str) -> None:
    answers = [rubbish(Generation([*C2.encode()], None, "stop")), answer]
    student = Engine(lambda prompt_ids, **arguments: answers.pop(0)(prompt_ids, **arguments))
    teacher = ScriptedEngine(TOKENIZER, ["xy", "z"])
    decoder = RelayDecoder(student, teacher, TOKENIZER, config(student_timeout_s=0.05))
    trajectory = asyncio.run(decoder.run(PROMPT))
    assert trajectory.status is RelayStatus.STUDENT_FAILED, why
    assert trajectory.error
    assert write(trajectory) == [("s", C2), ("t", "xy")], "what was written is kept"


STUDENT_ENDINGS = [
    # generation, response, why
    (Generation([97, EOS], None, "eos"), [97, EOS], "an EOS"),
    (Generation([97, EOS], None, "stop"), [97, EOS], "an EOS that the engine calls a stop"),
    (Generation([97], None, "eos"), [97], "another end-of-sequence token, which the engine left out"),
    (Generation([97], None, "length"), [97], "the context is full"),
    (Generation([], None, "length"), [], "it was full before"),
    (Generation([97] * 300, None, "length"), [97] * 200, "an engine that ignores max_tokens"),
]


@pytest.mark.parametrize(("generation", "response", "why"), STUDENT_ENDINGS)
def test_how_a_student_ends(generation: Generation, response: list[int], why: str) -> None:
    student = Engine(lambda prompt_ids, **_: generation)
    trajectory = asyncio.run(RelayDecoder(student, None, TOKENIZER, config()).run(PROMPT))
    assert trajectory.response_ids == response, why
    assert trajectory.status is RelayStatus.COMPLETED
    assert len(student.requests) == 1


def test_a_stop_that_is_no_command_goes_on_until_the_budget() -> None:
    student = Engine(lambda prompt_ids, **_: Generation([97, 98], None, "stop"))
    trajectory = asyncio.run(RelayDecoder(student, None, TOKENIZER, config(max_response_tokens=5)).run(PROMPT))
    assert trajectory.response_ids == [97, 98, 97, 98, 97]


# ---- the config ----

BAD_CONFIGS = [
    # field, value, why
    ("max_response_tokens", 0, "no room"),
    ("max_response_tokens", -1, "negative"),
    ("max_response_tokens", 1.0, "a float"),
    ("max_response_tokens", "8", "a string"),
    ("max_response_tokens", True, "a bool"),
    ("max_response_tokens", None, "nothing"),
    ("max_calls", -1, "negative"),
    ("max_calls", 1.5, "a float"),
    ("max_calls", False, "a bool"),
    ("max_tokens_per_call", 0, "calls are forbidden by max_calls, not so"),
    ("max_tokens_per_call", "4096", "a string"),
    ("teacher_timeout_s", 0, "no time"),
    ("teacher_timeout_s", -1.0, "negative"),
    ("teacher_timeout_s", float("nan"), "not a number"),
    ("teacher_timeout_s", float("inf"), "for ever"),
    ("teacher_timeout_s", "30", "a string"),
    ("teacher_timeout_s", None, "nothing"),
    ("student_timeout_s", 0, "no time"),
    ("on_teacher_failure", "ignore", "unknown"),
    ("on_teacher_failure", None, "nothing"),
    ("on_teacher_failure", ["continue"], "a list"),
]


@pytest.mark.parametrize(("name", "value", "why"), BAD_CONFIGS)
def test_a_bad_value_names_its_field(name: str, value: Any, why: str) -> None:
    with pytest.raises(ValueError, match=f"^{name}: ") as error:
        config(**{name: value})
    assert repr(value) in str(error.value), why
    assert "\n" not in str(error.value)


def test_on_teacher_failure_lists_what_is_allowed() -> None:
    with pytest.raises(ValueError, match="continue, drop, fail"):
        config(on_teacher_failure="x")


def test_the_first_three_fields_are_required_and_the_rest_are_not() -> None:
    RelayConfig(max_response_tokens=1, max_calls=0, max_tokens_per_call=1)
    for missing in ("max_response_tokens", "max_calls", "max_tokens_per_call"):
        values = {"max_response_tokens": 1, "max_calls": 0, "max_tokens_per_call": 1}
        del values[missing]
        with pytest.raises(TypeError, match=missing):
            RelayConfig(**values)


# ---- calls without a command ----


class Every(Policy):
    """A call after every `num_student_tokens` tokens."""

    allows_calls = False

    def __init__(self, num_student_tokens: int, num_tokens: int):
        self._planned = Interruption(num_student_tokens, num_tokens)

    def next_interruption(self) -> Interruption:
        return self._planned


INTERRUPTED = [
    # student's words, teacher's, policy, what is written, why
    (["abcde"], ["wx", "yz"], Every(2, 2), [("s", "ab"), ("t", "wx"), ("s", "cd"), ("t", "yz"), ("s", "e$")], "twice"),
    (["ab"], ["x"], Every(3, 1), [("s", "ab$")], "the student ends before the call"),
    (["ab"], ["x", "y"], Every(2, 1), [("s", "ab"), ("t", "x"), ("s", "$")], "and right behind it it ends"),
    (["ab"], ["wxyz"], Every(0, 3), [("t", "wxyz$")], "nothing by the student: the teacher ends it, in turns of three"),
    (
        ["abcdef"],
        ["v" * 20],
        Every(1, 9),
        [("s", "a"), ("t", "v" * 5), ("s", "b"), ("t", "v" * 5)],
        "a cap, a limit of 12",
    ),
    ([f"a{C2}"], [], Every(99, 9), [("s", f"a{C2}$")], "a command is text"),
    (["abc"], ["wxyzwxyz"], TeacherAlone(), [("t", "wxyzwxyz$")], "the cap of 5 does not bind it"),
]


@pytest.mark.parametrize(("words", "teacher_words", "policy", "wanted", "why"), INTERRUPTED)
def test_calls_without_a_command(words: list, teacher_words: list, policy: Policy, wanted: list, why: str) -> None:
    student, teacher = ScriptedEngine(TOKENIZER, ["".join(words)]), ScriptedEngine(TOKENIZER, ["".join(teacher_words)])
    limits = config(max_response_tokens=12 if "limit" in why else 64, max_calls=1, max_tokens_per_call=5)
    trajectory = asyncio.run(RelayDecoder(student, teacher, TOKENIZER, limits).run(PROMPT, policy=policy))
    assert write(trajectory) == wanted, why
    served = [call for call in trajectory.calls if call.outcome == "served"]
    assert not any(call.has_command for call in served)
    assert sum(call.num_delivered for call in served) == trajectory.num_teacher_tokens


def test_what_a_call_costs_the_teacher_is_recorded() -> None:
    class Caching(ScriptedEngine):
        async def generate(self, prompt_ids: list[int], **options: Any) -> Generation:
            answer = await super().generate(prompt_ids, **options)
            return dataclasses.replace(answer, num_cached=len(prompt_ids) - 1)

    decoder = RelayDecoder(
        ScriptedEngine(TOKENIZER, [f"ab{C2}", f"c{C2}"]), Caching(TOKENIZER, ["xyzw"]), TOKENIZER, config()
    )
    trajectory = asyncio.run(decoder.run(PROMPT))
    contexts = [len(PROMPT) + 2, len(PROMPT) + 2 + 2 + 1]  # without the commands
    assert [(call.num_context, call.num_cached) for call in trajectory.calls] == [(n, n - 1) for n in contexts]


def test_random_calls_come_at_their_rate_with_lengths_by_the_law() -> None:
    policy = make_policy("random_0.1", seed=3)
    drawn = [policy.next_interruption() for _ in range(4000)]
    assert all(planned is not None and planned.num_tokens is not None for planned in drawn)
    waits = [planned.num_student_tokens for planned in drawn if planned]
    assert abs(sum(waits) / len(waits) - 9.0) < 0.5  # mean (1 - p) / p; its standard error is 0.15
    lengths = Counter(planned.num_tokens for planned in drawn if planned)
    assert set(lengths) == {d * 10**k for d in range(1, 10) for k in range(4)}
    assert make_policy("random_0").next_interruption() is None


def test_a_response_may_have_a_lower_limit_and_a_seed_for_its_teacher() -> None:
    asked: list[Any] = []

    class Teacher(ScriptedEngine):
        async def generate(self, prompt_ids: list[int], *, sampling: Any, **options: Any) -> Generation:
            asked.append(dict(sampling))
            return await super().generate(prompt_ids, sampling=sampling, **options)

    decoder = RelayDecoder(
        ScriptedEngine(TOKENIZER, [f"a{C2}", "bcdef"]), Teacher(TOKENIZER, ["xyzw"]), TOKENIZER, config()
    )
    limit = 1 + len(C2) + 2 + 3
    trajectory = asyncio.run(decoder.run(PROMPT, teacher_sampling={"seed": 7}, max_response_tokens=limit))
    assert write(trajectory) == [("s", f"a{C2}"), ("t", "xy"), ("s", "bcd")]
    position = 1 + len(C2)
    assert asked == [{"temperature": 0.7, "seed": 7 + position}], "each call draws anew"
    more = asyncio.run(decoder.run(PROMPT, max_response_tokens=10**6))
    assert len(more.response_ids) <= decoder.config.max_response_tokens


@pytest.mark.parametrize("name", ["teacher_alone", "random_1"])
def test_calls_without_a_command_do_not_come_for_ever_from_a_dead_teacher(name: str) -> None:
    dead = ScriptedEngine(TOKENIZER, lambda context: EngineError("gone"))
    decoder = RelayDecoder(ScriptedEngine(TOKENIZER, ["ab"]), dead, TOKENIZER, config())
    run = decoder.run(PROMPT, policy=make_policy(name))
    trajectory = asyncio.run(asyncio.wait_for(run, 5.0))
    assert write(trajectory) == [("s", "ab$")], "the student continues"
    assert [call.outcome for call in trajectory.calls] == ["failed"]
