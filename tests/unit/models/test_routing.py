"""Which teacher answers: by data source, then by weight, the same for the same seed."""

import asyncio
from collections import Counter
from typing import Any

import pytest

from relay_verl.config import TeacherSettings, read_settings
from relay_verl.decoder import RelayDecoder
from relay_verl.engines import ScriptedEngine
from relay_verl.errors import EngineError
from relay_verl.models.routing import pick_teacher, teachers_for
from relay_verl.trainer.metrics import SampleStats, relay_metrics
from tests.helpers.tokenizers import ByteTokenizer


def teacher(path: str, *data_sources: str, **values: Any) -> TeacherSettings:
    return TeacherSettings(path=path, data_sources=data_sources or None, **values)


CANDIDATES = [
    # teachers, data source, who may answer, why
    ([teacher("a")], "math", "a", "one for all"),
    ([teacher("a")], None, "a", "the dataset does not say"),
    ([teacher("a"), teacher("b")], "math", "ab", "neither names anything"),
    ([teacher("a", "math"), teacher("b")], "math", "a", "who names it comes first"),
    ([teacher("a", "math"), teacher("b")], "code", "b", "no one names it"),
    ([teacher("a", "math"), teacher("b")], None, "b", "no source is named by no one"),
    ([teacher("a", "math", "code"), teacher("b", "code"), teacher("c")], "code", "ab", "two name it"),
    ([teacher("a", "math"), teacher("b", "code")], "law", "", "no one is left"),
    ([teacher("a", "mathematics")], "math", "", "a part of a name is not a name"),
]


@pytest.mark.parametrize(("teachers", "data_source", "expected", "why"), CANDIDATES, ids=[c[-1] for c in CANDIDATES])
def test_who_may_answer(teachers: list[TeacherSettings], data_source: str | None, expected: str, why: str) -> None:
    assert "".join(str(t.path) for t in teachers_for(teachers, data_source)) == expected, why
    if expected:
        assert {pick_teacher(teachers, data_source, seed).path for seed in range(40)} == set(expected), why
    else:
        with pytest.raises(EngineError, match=f"no teacher answers data_source={data_source!r}"):
            pick_teacher(teachers, data_source, 0)


def test_weights_are_shares() -> None:
    teachers = [teacher("a", weight=3.0), teacher("b"), teacher("c", "other", weight=100.0)]
    drawn = Counter(pick_teacher(teachers, "math", seed).path for seed in range(4000))
    assert drawn.keys() == {"a", "b"}
    assert drawn["a"] == pytest.approx(3000, abs=110)  # four standard deviations


def test_the_same_seed_draws_the_same_teacher() -> None:
    teachers = [teacher("a"), teacher("b"), teacher("c")]
    runs = [[pick_teacher(teachers, "math", seed).path for seed in range(30)] for _ in range(2)]
    assert runs[0] == runs[1]
    assert len(set(runs[0])) == 3


# ---- what a teacher brings with it ----


TWO = {
    "teachers": [
        {"path": "models/big", "temperature": 0.2, "timeout_s": 5},
        {"path": "models/code", "name": "coder", "temperature": 0.9, "timeout_s": 60},
    ]
}


def test_each_teacher_has_its_own_limits() -> None:
    settings = read_settings(TWO)
    big, coder = (
        settings.decoder_config(64, greedy=False, vocab_size=None, teacher=t) for t in settings.active_teachers.values()
    )
    assert (big.teacher_sampling["temperature"], big.teacher_timeout_s) == (0.2, 5.0)
    assert (coder.teacher_sampling["temperature"], coder.teacher_timeout_s) == (0.9, 60.0)
    assert (big.teacher_name, coder.teacher_name) == ("big", "coder")
    alone = read_settings({"teacher": {"path": "models/big"}})
    assert alone.decoder_config(64, greedy=False, vocab_size=None).teacher_name is None, "there is no one to tell apart"


def test_metrics_say_who_answered_where_there_are_several() -> None:
    tokenizer = ByteTokenizer()
    settings = read_settings(TWO | {"max_calls": 1})

    def answered(by: TeacherSettings, script: list) -> SampleStats:
        limits = settings.decoder_config(99, greedy=True, vocab_size=None, teacher=by)
        student = ScriptedEngine(tokenizer, ["a<call>2</call>", "b"])
        decoder = RelayDecoder(student, ScriptedEngine(tokenizer, script), tokenizer, limits)
        return SampleStats.of(asyncio.run(decoder.run([1])), is_correct=True, reward=1.0)

    big, coder = settings.active_teachers.values()
    group = [
        answered(big, ["xy"]),
        answered(big, ["xy"]),
        answered(coder, ["xy"]),
        answered(coder, [EngineError("no")]),
    ]
    metrics = relay_metrics([[SampleStats(**sample.to_dict()) for sample in group]])  # type: ignore[arg-type]
    by_teacher = {name: value for name, value in metrics.items() if name.startswith("relay/teacher/")}
    assert by_teacher == {
        "relay/teacher/big/calls": 2.0,
        "relay/teacher/coder/calls": 1.0,
        "relay/teacher/coder/failures": 1.0,
    }


def test_one_response_may_have_a_teacher_of_its_own() -> None:
    tokenizer = ByteTokenizer()
    own, guest = ScriptedEngine(tokenizer, ["own"] * 2), ScriptedEngine(tokenizer, ["guest"])
    limits = read_settings(TWO).decoder_config(99, greedy=True, vocab_size=None)

    def texts(decoder: RelayDecoder, **values: Any) -> list[str]:
        trajectory = asyncio.run(decoder.run([1], **values))
        return [tokenizer.decode(s.token_ids) for s in trajectory.segments if s.source == "teacher"]

    def decoder(teacher: Any) -> RelayDecoder:
        return RelayDecoder(ScriptedEngine(tokenizer, ["a<call>3</call>", "b"]), teacher, tokenizer, limits)

    assert texts(decoder(own), teacher=guest) == ["gue"]
    assert texts(decoder(own)) == ["own"]
    assert texts(decoder(None), teacher=guest) == ["st"], "also where the decoder has none"
    assert texts(decoder(None)) == []
