"""Ids that the model has and the tokenizer does not, and ends other than the tokenizer's: kept, read and counted alike
by engines, decoder, text bridge and evaluation."""

import asyncio
import json
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from relay_verl.config import read_settings
from relay_verl.data.schema import to_row
from relay_verl.decoder import RelayConfig, RelayDecoder
from relay_verl.engines import Generation, ScriptedEngine
from relay_verl.engines.text_bridge import TextBridge
from relay_verl.engines.verl_server import VerlServerEngine
from relay_verl.evaluation.shared_tokenizer import vocabulary_of_writer
from relay_verl.evaluation.worker import EvalSettings, EvalWorker
from relay_verl.models.vocabulary import Vocabulary, read_vocabulary
from relay_verl.protocol import format_call
from relay_verl.run_config import PromptSettings
from relay_verl.tokenization import TokenBytes, encode_within
from relay_verl.types import CallOutcome, RelayStatus
from tests.helpers.generators import ChatTokenizer
from tests.helpers.tokenizers import ByteTokenizer, bpe, make_bpe, sentencepiece

EOS = ByteTokenizer.eos_token_id
PAD_ROW, OTHER_END, SIZE = 257, 290, 300
"""A row of the embedding without a token, another end, and the number of rows."""
TOKENIZER = ByteTokenizer()
COMMAND = list(format_call(9).encode())


class Engine:
    """Answers with the next of its generations."""

    def __init__(self, *answers: Generation):
        self.answers = list(answers)
        self.contexts: list[list[int]] = []

    async def generate(self, prompt_ids: list[int], **_: Any) -> Generation:
        self.contexts.append(list(prompt_ids))
        return self.answers.pop(0) if self.answers else Generation([EOS], None, "eos")


def relay(student: Any, teacher: Any, **limits: Any) -> Any:
    config = RelayConfig(60, max_calls=3, max_tokens_per_call=9, vocab_size=SIZE, **limits)
    return asyncio.run(RelayDecoder(student, teacher, TOKENIZER, config).run([1]))


# ---- ids without text ----


@pytest.mark.parametrize("tokenizer", [bpe(), sentencepiece("replace"), sentencepiece("metaspace"), TOKENIZER])
@pytest.mark.parametrize("beyond", [0, 271, 2**32, 2**40])
def test_an_id_that_the_tokenizer_does_not_name_has_no_bytes(tokenizer: Any, beyond: int) -> None:
    tokens = TokenBytes(tokenizer)
    text = encode_within(tokenizer, "so")
    assert tokens.to_bytes(len(tokenizer) + beyond) == b""
    assert tokens.join([len(tokenizer) + beyond, *text]) == tokens.join(text)


class Picky(ByteTokenizer):
    """As slow tokenizers do, raises on an id that it does not have."""

    def decode(self, token_ids: list[int], *, skip_special_tokens: bool = False) -> str:
        if max(token_ids) >= len(self):
            raise KeyError(max(token_ids))
        return super().decode(token_ids)


def test_so_it_is_where_the_tokenizer_raises() -> None:
    assert TokenBytes(Picky()).join([97, PAD_ROW, 98]) == b"ab"


@given(
    st.lists(st.integers(97, SIZE - 1).filter(lambda i: i not in (EOS, OTHER_END)), min_size=1, max_size=9),
    st.lists(st.integers(97, SIZE - 1).filter(lambda i: i not in (EOS, OTHER_END)), max_size=9),
)
def test_padding_rows_are_kept_token_by_token(answer: list[int], before: list[int]) -> None:
    """The student's context, the teacher's and what is trained on hold them where they were sampled."""
    student = Engine(Generation([*before, *COMMAND], None, "stop"), Generation([PAD_ROW, EOS], None, "eos"))
    teacher = Engine(Generation(answer, None, "length"))
    trajectory = relay(student, teacher, end_ids=frozenset({OTHER_END}))
    assert trajectory.status is RelayStatus.COMPLETED
    assert trajectory.response_ids == [*before, *COMMAND, *answer, PAD_ROW, EOS]
    assert teacher.contexts == [[1, *before]]
    assert student.contexts[1] == [1, *before, *COMMAND, *answer]


def test_a_command_with_a_padding_row_inside_is_a_command() -> None:
    """It has no text, so the text is that of a command; the teacher's context keeps the row."""
    opening, close = list(b"x<call>"), list(b"9</call>")
    student = Engine(Generation([*opening, PAD_ROW, *close], None, "stop"))
    teacher = Engine(Generation([97], None, "length"))
    assert [call.outcome for call in relay(student, teacher).calls] == [CallOutcome.SERVED]
    assert teacher.contexts == [[1, *b"x", PAD_ROW]]


def test_an_id_past_the_embedding_fails_the_call_and_not_the_response() -> None:
    student = Engine(Generation([97, *COMMAND], None, "stop"), Generation([98, EOS], None, "eos"))
    trajectory = relay(student, Engine(Generation([98, SIZE], None, "length")))
    assert trajectory.status is RelayStatus.COMPLETED
    assert trajectory.response_ids == [97, *COMMAND, 98, EOS]
    assert [call.outcome for call in trajectory.calls] == [CallOutcome.FAILED]
    assert str(SIZE) in trajectory.calls[0].error


def test_an_id_of_the_students_past_the_embedding_never_reaches_a_batch() -> None:
    trajectory = relay(Engine(Generation([97, SIZE, EOS], None, "eos")), None)
    assert (trajectory.status, trajectory.response_ids) == (RelayStatus.STUDENT_FAILED, [])


def test_evaluation_keeps_a_teachers_padding_row() -> None:
    """Under `len(tokenizer)` as the bound, this query failed: evaluation asks for every call."""
    settings = read_settings({"teacher": {"path": "x"}})
    rules = EvalSettings("c", "learned", settings, max_tokens=99, max_context=None, template={}, seed=0)
    student = Engine(Generation([*COMMAND], None, "stop"), Generation([*b"\\boxed{56}", EOS], None, "eos"))
    worker = EvalWorker(
        student, Engine(Generation([PAD_ROW, 97], None, "length")), ChatTokenizer(), rules,
        vocabulary=Vocabulary(SIZE, frozenset({EOS})),
    )  # fmt: skip
    row = to_row(data_source="x", question="7*8?", ground_truth="56", id="q")
    record = asyncio.run(worker.process({"row": row, "sample": 0, "sampling": {"temperature": 0.0}}))
    assert record["is_correct"]
    assert record["num_teacher_tokens"] == 2


# ---- ends ----


class Client:
    """verl's client, which does not say why an engine stopped."""

    def __init__(self, token_ids: list[int]):
        self.token_ids = token_ids

    async def generate(self, request_id: str, **_: Any) -> Any:
        return SimpleNamespace(token_ids=self.token_ids, log_probs=None, stop_reason="completed", extra_fields={})


@pytest.mark.parametrize(("last", "reason"), [(EOS, "eos"), (OTHER_END, "eos"), (97, "length"), (PAD_ROW, "length")])
def test_an_end_is_one_also_with_the_last_token_that_fits(last: int, reason: str) -> None:
    engine = VerlServerEngine(Client([97, last]), TOKENIZER, end_ids=frozenset({OTHER_END}))
    assert asyncio.run(engine.generate([1], max_tokens=2, stop=("</call>",))).finish_reason == reason


STUDENTS = [
    # what the student's engine answers, the response, why
    (Generation([97, OTHER_END], None, "length"), [97, OTHER_END], "an end with the last token that fits"),
    (Generation([97, OTHER_END], None, "stop"), [97, OTHER_END], "an engine that calls it a stop"),
    (Generation([97, OTHER_END, 98, 99], [-1.0] * 4, "eos"), [97, OTHER_END], "an engine that does not know this end"),
    (Generation([97, EOS, OTHER_END], None, "length"), [97, EOS], "the first of both"),
]


@pytest.mark.parametrize(("answer", "response", "why"), STUDENTS, ids=[case[2] for case in STUDENTS])
def test_every_end_ends_the_students_response(answer: Generation, response: list[int], why: str) -> None:
    trajectory = relay(Engine(answer, Generation([120], None, "eos")), None, end_ids=frozenset({OTHER_END}))
    assert (trajectory.status, trajectory.response_ids) == (RelayStatus.COMPLETED, response), why
    assert trajectory.logprobs is None or len(trajectory.logprobs) == len(response)


@pytest.mark.parametrize("reason", ["length", "stop", "eos"])
def test_every_end_ends_the_response_where_the_teacher_writes_it(reason: Any) -> None:
    student = Engine(Generation([*COMMAND], None, "stop"))
    teacher = Engine(Generation([97, OTHER_END, 98], None, reason))
    trajectory = relay(student, teacher, end_ids=frozenset({OTHER_END}))
    assert trajectory.response_ids == [*COMMAND, 97, OTHER_END]
    assert trajectory.num_teacher_tokens == 2
    assert len(student.contexts) == 1, "the student is not asked past the end"


def test_every_end_of_a_bridged_teacher_is_the_students_end() -> None:
    theirs = make_bpe([b"fifty"], added=("<|other|>",))
    theirs.chat_template = "{% for m in messages %}{{ m.content }}{% endfor %}"
    other = theirs.convert_tokens_to_ids("<|other|>")
    written = [*theirs.encode("fifty"), other, *theirs.encode(" rambles")]
    teacher = Engine(Generation(written, None, "length"))
    bridged = TextBridge(teacher, theirs, bpe(), {}, frozenset({other})).open([{"role": "user", "content": "x"}], 1)
    answer = asyncio.run(bridged.generate([1], max_tokens=30))
    assert TokenBytes(bpe()).join(answer.token_ids[:-1]) == b"fifty"
    assert (answer.token_ids[-1], answer.finish_reason) == (bpe().eos_token_id, "eos")


def test_a_command_is_served_though_an_end_follows_it() -> None:
    student = Engine(Generation([*COMMAND, OTHER_END, 97], None, "eos"), Generation([EOS], None, "eos"))
    trajectory = relay(student, Engine(Generation([98], None, "length")), end_ids=frozenset({OTHER_END}))
    assert trajectory.response_ids == [*COMMAND, 98, EOS]


# ---- where they are read ----

QWEN = {"model_type": "qwen2", "vocab_size": SIZE, "eos_token_id": 291}
FOLDERS = [
    # config.json, generation_config.json, size, ends, why
    (QWEN, {"eos_token_id": [OTHER_END, 291]}, SIZE, {OTHER_END, 291, EOS}, "a list, and the tokenizer's"),
    (QWEN, {"eos_token_id": OTHER_END}, SIZE, {OTHER_END, EOS}, "one id"),
    (QWEN, {}, SIZE, {EOS}, "a generation config without one"),
    (QWEN, None, SIZE, {291, EOS}, "no generation config: the model's, as in vLLM"),
    (None, None, None, {EOS}, "a folder that holds no model"),
    ({"model_type": "no such type"}, None, None, {EOS}, "a model that transformers does not know"),
    (
        {"model_type": "gemma3", "text_config": {"model_type": "gemma3_text", "vocab_size": SIZE}},
        {"eos_token_id": [OTHER_END]},
        SIZE,
        {OTHER_END, EOS},
        "the text part of a model that also sees",
    ),
]


@pytest.mark.parametrize(("config", "generation", "size", "ends", "why"), FOLDERS, ids=[case[4] for case in FOLDERS])
def test_a_model_folder_says_its_vocabulary(
    config: Any, generation: Any, size: int | None, ends: set[int], why: str, tmp_path: Path
) -> None:
    write_model(tmp_path, config, generation)
    assert read_vocabulary(str(tmp_path), TOKENIZER) == Vocabulary(size, frozenset(ends)), why


def write_model(folder: Path, config: Any, generation: Any) -> None:
    folder.mkdir(exist_ok=True)
    for name, content in (("config.json", config), ("generation_config.json", generation)):
        if content is not None:
            (folder / name).write_text(json.dumps(content))


def test_an_endpoint_has_the_tokenizers_end_and_no_known_size() -> None:
    assert read_vocabulary("http://127.0.0.1:8000/v1", TOKENIZER) == Vocabulary(None, frozenset({EOS}))


def test_the_writers_vocabulary_bounds_a_condition(tmp_path: Path) -> None:
    """The student reads what the teacher writes, so its embedding is the bound, though the teacher's is larger."""
    for name, size in (("student", SIZE), ("teacher", 999), ("tokenizer", 777)):
        write_model(tmp_path / name, {**QWEN, "vocab_size": size}, None)
    student, teacher, tokenizer = (str(tmp_path / name) for name in ("student", "teacher", "tokenizer"))
    url = "http://127.0.0.1:8000/v1"
    for models, size in (
        ((student, teacher), SIZE),
        ((student, url), SIZE),
        ((None, teacher), 999),
        ((url, teacher), 777),
    ):
        assert vocabulary_of_writer(*models, TOKENIZER, tokenizer, PromptSettings({})).size == size


def test_a_scripted_student_ends_as_before() -> None:
    trajectory = relay(ScriptedEngine(TOKENIZER, ["ab"]), None)
    assert trajectory.response_ids == [*b"ab", EOS]
