"""Which model decides a label, and what a rollout may change."""

import asyncio
from collections.abc import Mapping
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from relay_verl.data.schema import to_row
from relay_verl.decoder import RelayConfig
from relay_verl.defer_training.labelled_query import COLUMN, LabelledQuery, summarize
from relay_verl.defer_training.labeller import Labeller
from relay_verl.defer_training.labels import LabelSource, label_places
from relay_verl.defer_training.relabeller import Relabeller
from relay_verl.engines.base import Generation
from relay_verl.engines.prompt_scores import PARAMETER, PromptScores
from relay_verl.errors import EngineError, PermanentError
from tests.helpers.generators import ChatTokenizer

EOS = ChatTokenizer.eos_token_id
IDS = st.lists(st.tuples(*[st.integers(0, 3)] * 3), min_size=1, max_size=30)


@given(IDS)
def test_the_student_decides_before_the_teacher_and_a_rollout_last(places: list[tuple[int, int, int]]) -> None:
    reference, student, teacher = map(list, zip(*places, strict=True))
    labels = label_places(reference, student, teacher)
    for place, (token, own, other) in enumerate(places):
        if own == token:
            assert (labels.sources[place], labels.values[place]) == (LabelSource.STUDENT, 1)
        elif other == token:
            assert (labels.sources[place], labels.values[place]) == (LabelSource.TEACHER, 0)
        else:
            assert place in labels.open_places


@given(IDS, st.randoms())
def test_rollouts_change_open_places_alone(places: list[tuple[int, int, int]], rng: Any) -> None:
    labels = label_places(*map(list, zip(*places, strict=True)))
    verdicts = [rng.random() < 0.5 for _ in labels.open_places]
    decided = labels.decided(verdicts)
    assert decided.sources == labels.sources
    assert [decided.values[place] for place in labels.open_places] == [int(verdict) for verdict in verdicts]
    others = set(range(len(places))) - set(labels.open_places)
    assert all(decided.values[place] == labels.values[place] for place in others)


class Model:
    """Knows the text it would write, whatever stands before; where `wrong` says so, another character.

    Args:
        text: its response.
        wrong: its greedy character at some places of the response in place of its own.
        finish: what its continuation from a place is, by place; else the rest of the text.
    """

    def __init__(self, text: str, wrong: Mapping[int, str] = {}, finish: Mapping[int, str] = {}):
        self.text, self.wrong, self.finish = text, wrong, finish
        self.asked: list[dict[str, Any]] = []

    async def generate(
        self, prompt_ids: list[int], *, max_tokens: int, sampling: Mapping[str, Any] = {}, **_: Any
    ) -> Generation:
        self.asked.append({"ids": list(prompt_ids), "max_tokens": max_tokens, **sampling})
        start = prompt_ids.index(ord("\n")) + 1 if ord("\n") in prompt_ids else len(prompt_ids)
        if (num_asked := sampling.get(PARAMETER)) is not None:
            own = [*self.text.encode(), EOS]
            best = list(prompt_ids[1:start]) + [
                ord(self.wrong[place]) if place in self.wrong else own[place]
                for place in range(len(prompt_ids) - start)
            ]
            logprobs = [-0.25] * (len(prompt_ids) - 1)
            scores = PromptScores(best, None) if num_asked else PromptScores(None, logprobs)
            return Generation([EOS], None, "eos", prompt=scores)
        place = len(prompt_ids) - start
        text = self.finish.get(place, self.text[place:])
        ids = [*text.encode(), EOS][:max_tokens]
        return Generation(ids, None, "eos" if ids[-1] == EOS else "length")


ANSWER = "so \\boxed{7}"
ROW = to_row(data_source="test", question="What?", ground_truth="7", id="q", index=0)
ROW["prompt"] = [{"role": "user", "content": "What?"}]


def labeller(student: Any, teacher: Any, **changes: Any) -> Labeller:
    options: dict[str, Any] = {
        "num_tries": 3,
        "rollout_tokens": 50,
        "wants_logprobs": True,
        "max_tokens": 40,
        "max_context": 100,
        "sampling": {"temperature": 0.7},
        "seed": 0,
        "template": {},
    }
    return Labeller(student, teacher, ChatTokenizer(), **{**options, **changes})


def label(student: Any, teacher: Any, **changes: Any) -> LabelledQuery:
    return LabelledQuery(**asyncio.run(labeller(student, teacher, **changes).process(ROW)))


def test_a_query_is_labelled() -> None:
    """Place 0: both are right; 1: the teacher alone; 2: neither, and the student's own rollout from there is right; 3:
    neither, and it is wrong."""
    student = Model(ANSWER, {1: "x", 2: "x", 3: "x"}, finish={3: "\\boxed{8}"})
    teacher = Model(ANSWER, {2: "y", 3: "y"})
    query = label(student, teacher)
    assert query.reference_ids == [*ANSWER.encode(), EOS]
    assert query.sources == [0, 1, 2, 2, *[0] * (len(ANSWER) - 3)]
    assert query.values == [1, 0, 1, 0, *[1] * (len(ANSWER) - 3)]
    assert query.student_ids[:4] == [ord(character) for character in "sxxx"]
    assert query.student_logprobs == query.teacher_logprobs == [-0.25] * len(query.reference_ids)
    assert query.num_student_tokens == len(ANSWER) - 2 + 1 + len("\\boxed{8}") + 1
    rollouts = [asked for asked in student.asked if PARAMETER not in asked]
    assert [asked["temperature"] for asked in rollouts] == [0.0, 0.0]
    assert summarize([query]) == {
        "num_queries": 1,
        "num_tokens": 13,
        "num_student": 10,
        "num_teacher": 1,
        "num_rollout": 2,
        "student_share": pytest.approx(11 / 13),
        "rollout_right_share": 0.5,
        "num_student_tokens": query.num_student_tokens,
        "num_teacher_tokens": 13,
    }


def test_without_probabilities_a_model_reads_a_text_once() -> None:
    student, teacher = Model(ANSWER), Model(ANSWER)
    query = label(student, teacher, wants_logprobs=False)
    assert query.student_logprobs is None and query.teacher_logprobs is None
    assert [sum(PARAMETER in asked for asked in model.asked) for model in (student, teacher)] == [1, 1]


def test_the_teacher_is_asked_until_it_is_right() -> None:
    answers = iter(["\\boxed{8}", "\\boxed{9}", ANSWER])

    class Unsure(Model):
        async def generate(self, prompt_ids: list[int], **options: Any) -> Generation:
            if PARAMETER not in options["sampling"]:
                self.text = next(answers)
            return await super().generate(prompt_ids, **options)

    teacher = Unsure("")
    query = label(Model(ANSWER), teacher)
    assert (query.num_tries, len(query.reference_ids)) == (3, len(ANSWER) + 1)
    seeds = [asked["seed"] for asked in teacher.asked if PARAMETER not in asked]
    assert len(set(seeds)) == 3, "each try has a seed of its own"


@pytest.mark.parametrize(("text", "max_tokens", "why"), [("\\boxed{8}", 40, "wrong"), (ANSWER, 12, "cut off")])
def test_a_query_without_a_reference_has_no_labels(text: str, max_tokens: int, why: str) -> None:
    query = label(Model(ANSWER), Model(text), max_tokens=max_tokens)
    assert (query.reference_ids, query.values, query.num_tries) == ([], [], 3), why


class Speechless(Model):
    async def generate(self, prompt_ids: list[int], **options: Any) -> Generation:
        return Generation([EOS], None, "eos") if PARAMETER in options["sampling"] else await super().generate(
            prompt_ids, **options
        )  # fmt: skip


def test_an_engine_without_scores_is_refused_for_all_queries() -> None:
    with pytest.raises(PermanentError, match=PARAMETER) as refused:
        label(Speechless(ANSWER), Model(ANSWER))
    assert refused.value.concerns_all


def relabel(student: Any, teacher: Any, policy: str, **changes: Any) -> tuple[LabelledQuery, LabelledQuery]:
    before = label(Model(ANSWER, {2: "x", 3: "x"}, {2: "", 3: ""}), Model(ANSWER, {2: "y", 3: "y"}))
    config = RelayConfig(max_response_tokens=20, max_calls=None, max_tokens_per_call=20)
    options: dict[str, Any] = {"config": config, "policy": policy, "iteration": 2, "max_context": 100, **changes}
    worker = Relabeller(student, teacher, ChatTokenizer(), **options)
    return before, LabelledQuery(**asyncio.run(worker.process({**ROW, COLUMN: before.to_dict()})))


def test_later_iterations_change_rollouts_alone_and_start_with_the_students_token() -> None:
    student = Model(ANSWER, finish={3: "\\boxed{7}", 4: "\\boxed{8}"})
    before, after = relabel(student, Model(ANSWER), "student_alone")
    assert (before.values[2:4], after.values[2:4]) == ([0, 0], [1, 0])
    assert after.values[:2] + after.values[4:] == before.values[:2] + before.values[4:]
    assert (after.iteration, after.sources, after.reference_ids) == (2, before.sources, before.reference_ids)
    prompt = len(after.prompt_ids)
    assert [bytes(asked["ids"][prompt:]) for asked in student.asked] == [b"sox", b"so x"]
    assert after.num_student_tokens == 2 + 10 + 10 and after.num_teacher_tokens == 0


def test_the_teacher_takes_part_in_later_rollouts() -> None:
    _, after = relabel(Model(""), Model(ANSWER, finish={3: "\\boxed{7}", 4: "\\boxed{7}"}), "teacher_alone")
    assert after.values[2:4] == [1, 1]
    assert (after.num_student_tokens, after.num_teacher_tokens) == (2, 20)


def test_a_teacher_that_fails_is_not_replaced_by_the_student() -> None:
    class Dead(Model):
        async def generate(self, prompt_ids: list[int], **options: Any) -> Generation:
            raise EngineError("down")

    with pytest.raises(EngineError, match="down"):
        relabel(Model(ANSWER), Dead(""), "teacher_alone")
