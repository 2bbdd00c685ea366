"""A teacher with another tokenizer: what it reads, and what becomes of what it writes."""

import asyncio
import copy
from functools import cache
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from relay_verl.decoder import RelayConfig, RelayDecoder
from relay_verl.engines import Generation, ScriptedEngine
from relay_verl.engines.text_bridge import TextBridge
from relay_verl.errors import EngineError
from relay_verl.tokenization import TokenBytes
from relay_verl.types import CallOutcome, RelayTrajectory
from tests.helpers.tokenizers import COMMAND, bpe, bpe_ids, make_bpe, sentencepiece

CHAT = [{"role": "user", "content": "7*8?"}]
TEMPLATE = "{% for m in messages %}[{{ m.role }}{{ mark }}]{{ m.content }}{% endfor %}=>"
OURS_END, THEIRS_END = bpe().eos_token, "<|stop|>"


@cache
def other() -> Any:
    """A byte-level BPE with other words, ids and EOS than `bpe()`."""
    tokenizer = make_bpe(
        [b"fifty", b" six", b"so", b"\xc3\xa9", b"\xe4\xb8\xad", b"12345"], added=("<|sep|>",), eos=THEIRS_END
    )
    tokenizer.add_special_tokens({"additional_special_tokens": ["<|sep|>"]})
    return tokenizer


@cache
def with_template(name: str) -> Any:
    tokenizer = copy.deepcopy(other() if name == "other" else bpe() if name == "bpe" else sentencepiece(name))
    tokenizer.chat_template = TEMPLATE
    return tokenizer


NAMES = ["other", "replace", "metaspace", "bpe"]


class Teacher:
    """Answers with ids of its own, and keeps what it was asked."""

    def __init__(self, ids: list[int], reason: str = "length"):
        self.ids, self.reason = ids, reason
        self.asked: list[tuple[list[int], dict[str, Any]]] = []

    async def generate(self, prompt_ids: list[int], **arguments: Any) -> Generation:
        self.asked.append((prompt_ids, arguments))
        return Generation(self.ids, [-1.0] * len(self.ids), self.reason, 3)  # type: ignore[arg-type]


def encode(tokenizer: Any, text: str) -> list[int]:
    return tokenizer.encode(text, add_special_tokens=False)


def ask(teacher: Any, context: list[int], max_tokens: int = 20, *, theirs: Any = None, ours: Any = None) -> Generation:
    bridge = TextBridge(teacher, theirs or with_template("other"), ours or bpe(), {"mark": "!"})
    prompt = [1, 2, 3]
    return asyncio.run(bridge.open(CHAT, len(prompt)).generate(prompt + context, max_tokens=max_tokens))


def text_of(tokenizer: Any, ids: list[int]) -> str:
    return TokenBytes(tokenizer).join(ids).decode()


# ---- what it reads ----


@pytest.mark.parametrize("name", NAMES)
def test_the_teacher_reads_the_chat_by_its_own_template_and_the_response_as_text(name: str) -> None:
    theirs = with_template(name)
    prompt = encode(theirs, "[user!]7*8?=>")
    teacher = Teacher(encode(theirs, "so"))
    ask(teacher, encode(bpe(), "so é. <call"), theirs=theirs)
    ask(teacher, [], theirs=theirs)
    [(first, _), (second, _)] = teacher.asked
    assert first[: len(prompt)] == prompt, "its own template, not the student's prompt"
    assert text_of(theirs, first[len(prompt) :]) == "so é. <call", "no blank is put in front"
    assert second == prompt


def test_what_the_student_spelled_is_no_special_token_of_the_teacher() -> None:
    teacher = Teacher(encode(other(), "so"))
    ask(teacher, encode(bpe(), f"so{THEIRS_END}<|sep|>"))
    read = teacher.asked[0][0]
    assert not set(read) & set(other().all_special_ids)
    assert text_of(other(), read).endswith(f"so{THEIRS_END}<|sep|>")


def test_half_a_character_of_the_student_is_not_read_yet() -> None:
    teacher = Teacher(encode(other(), "so"))
    ask(teacher, [*encode(bpe(), "so"), *bpe_ids(b"\xc3")])
    assert text_of(other(), teacher.asked[0][0]).endswith("=>so")


# ---- what it writes ----

WRITTEN = [
    # the teacher's text (with its EOS where it ends), n, what comes back, its reason, why
    ("fifty six", 20, "fifty six", "length", "all of it"),
    ("fifty six", 4, "fift", "length", "n of the student's tokens, which are bytes here"),
    (f"fifty{THEIRS_END}", 20, f"fifty{OURS_END}", "eos", "its end is the student's"),
    (f"fifty{THEIRS_END}", 6, f"fifty{OURS_END}", "eos", "which is one token"),
    (f"fifty{THEIRS_END}", 5, "fifty", "length", "and has no room here"),
    (f"{THEIRS_END}", 5, OURS_END, "eos", "the end alone"),
    (f"so{THEIRS_END}fifty", 20, f"so{OURS_END}", "eos", "what follows its end is nothing"),
    ("so<|sep|>fifty", 20, "sofifty", "length", "its other special tokens are not text"),
]


@pytest.mark.parametrize(("text", "max_tokens", "expected", "reason", "why"), WRITTEN, ids=[w[-1] for w in WRITTEN])
def test_what_comes_back(text: str, max_tokens: int, expected: str, reason: str, why: str) -> None:
    answer = ask(Teacher(encode(other(), text)), [], max_tokens)
    assert text_of(bpe(), answer.token_ids) == expected, why
    assert (answer.token_ids[-1] == bpe().eos_token_id) == (reason == "eos")
    assert answer.finish_reason == reason, why
    assert (answer.logprobs, answer.num_cached) == (None, None), "those are of other tokens"


def test_a_teacher_that_ends_without_its_eos_has_ended_too() -> None:
    answer = ask(Teacher(encode(other(), "so"), "eos"), [])
    assert (text_of(bpe(), answer.token_ids), answer.finish_reason) == (f"so{OURS_END}", "eos")


def test_text_that_looks_like_the_students_end_is_text() -> None:
    answer = ask(Teacher(encode(other(), f"so{OURS_END}so")), [], 99)
    assert bpe().eos_token_id not in answer.token_ids
    assert text_of(bpe(), answer.token_ids) == f"so{OURS_END}so"


def test_a_character_cut_by_the_teacher_is_left_out() -> None:
    half = [*encode(other(), "so"), *TokenBytes(other()).encode(b"\xe4\xb8")]
    assert text_of(bpe(), ask(Teacher(half), []).token_ids) == "so"
    assert ask(Teacher(half[-2:]), []).token_ids == [], "which the decoder counts as a failed call"


def test_a_character_cut_by_the_limit_keeps_its_bytes() -> None:
    answer = ask(Teacher(encode(other(), "中")), [], 2)
    assert TokenBytes(bpe()).join(answer.token_ids) == "中".encode()[:2], "bytes that the teacher wrote, none made up"


def test_the_teacher_is_asked_for_enough() -> None:
    teacher = Teacher(encode(other(), "so"))
    for max_tokens in (1, 4, 1000):
        ask(teacher, [], max_tokens)
    assert [asked["max_tokens"] - n for (_, asked), n in zip(teacher.asked, (1, 4, 1000), strict=True)] == [8, 9, 258]


@pytest.mark.parametrize("ours", ["replace", "metaspace"])
@pytest.mark.parametrize("text", ["so", " so x", "\n\nso", "é中", "  ", "\n"])
def test_a_sentencepiece_student_gets_the_teachers_text_and_no_blank_more(ours: str, text: str) -> None:
    student = sentencepiece(ours)
    answer = ask(Teacher(encode(other(), text)), encode(student, "a b"), 99, ours=student)
    assert text_of(student, answer.token_ids) == text


# ---- behind the decoder ----

TEXTS = st.text(alphabet="so .é中15fity<|>\n", min_size=1, max_size=24)


@given(
    turns=st.lists(TEXTS, min_size=1, max_size=3),
    answers=st.lists(st.tuples(TEXTS, st.booleans()), min_size=3, max_size=3),
    num_tokens=st.integers(1, 12),
    name=st.sampled_from(NAMES),
)
def test_the_invariants_hold_for_the_students_ids(
    turns: list[str], answers: list[tuple[str, bool]], num_tokens: int, name: str
) -> None:
    theirs = with_template(name)
    contexts: list[list[int]] = []
    left = list(answers)

    def answer(context: list[int]) -> list[int]:
        contexts.append(context)
        text, ends = left.pop(0)
        return TokenBytes(theirs).encode(text.encode()) + [theirs.eos_token_id] * ends + encode(theirs, " and on") * 9

    script = [encode(bpe(), f"{turn}<call>{num_tokens}</call>") for turn in turns]
    student = ScriptedEngine(bpe(), [*script, "done"])
    trajectory = relay(student, ScriptedEngine(theirs, answer), theirs)
    served = [call for call in trajectory.calls if call.outcome is CallOutcome.SERVED]
    theirs_written = [s for s in trajectory.segments if s.source == "teacher"]
    ours_written = [i for s in trajectory.segments if s.source == "student" for i in s.token_ids]
    everything = [*(i for ids in script for i in ids), *encode(bpe(), "done"), bpe().eos_token_id]
    assert ours_written == everything[: len(ours_written)], "the student's tokens are those it sampled"
    for segment, (text, ends), call in zip(theirs_written, answers, served, strict=False):
        assert len(segment.token_ids) == call.num_delivered <= num_tokens
        whole = f"{text}{OURS_END}" if ends else text + " and on" * 9
        assert whole.encode().startswith(TokenBytes(bpe()).join(segment.token_ids)), "the teacher's own words"
    for context in student.requests:
        assert [*trajectory.prompt_ids, *trajectory.response_ids][: len(context)] == context, (
            "it sees what is trained on"
        )
    assert trajectory.response_mask == [int(s.source == "student") for s in trajectory.segments for _ in s.token_ids]
    prompt = encode(theirs, "[user]7*8?=>")
    for context in contexts:
        assert context[: len(prompt)] == prompt
        assert not COMMAND.search(TokenBytes(theirs).join(context))


def relay(student: Any, teacher: Any, theirs: Any, **limits: Any) -> RelayTrajectory:
    config = RelayConfig(**{"max_response_tokens": 400, "max_calls": 3, "max_tokens_per_call": 50, **limits})
    prompt = encode(bpe(), "Q: 7*8?")
    bridged = TextBridge(teacher, theirs, bpe()).open(CHAT, len(prompt))
    return asyncio.run(RelayDecoder(student, None, bpe(), config).run(prompt, teacher=bridged))


@pytest.mark.parametrize("text", ["so é.", "20>. <call> x", "\n\n so"])
def test_with_the_same_tokenizer_it_is_as_without_the_bridge(text: str) -> None:
    script = ["so <call>7</call>", " done"]
    config = RelayConfig(max_response_tokens=400, max_calls=3, max_tokens_per_call=50)
    plain = asyncio.run(
        RelayDecoder(ScriptedEngine(bpe(), script), ScriptedEngine(bpe(), [text]), bpe(), config).run([1])
    )
    bridged = relay(ScriptedEngine(bpe(), script), ScriptedEngine(bpe(), [text]), with_template("bpe"))
    assert bridged.response_ids == plain.response_ids
    assert bridged.response_mask == plain.response_mask


def test_a_failing_teacher_fails_as_without_the_bridge() -> None:
    student = ScriptedEngine(bpe(), ["so <call>7</call>", " done"])
    trajectory = relay(student, ScriptedEngine(other(), [EngineError("down")]), with_template("other"))
    [call] = trajectory.calls
    assert (call.outcome, call.error) == (CallOutcome.FAILED, "down")
    assert trajectory.call_ratio == 0.0


def test_an_id_that_the_teachers_tokenizer_does_not_know_is_no_text() -> None:
    answer = ask(Teacher([10**6, *encode(other(), "so")]), [])
    assert text_of(bpe(), answer.token_ids) == "so"
