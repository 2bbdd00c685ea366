"""What is measured of the tiny pairs, with models that write what a test says."""

import importlib
import sys
from collections.abc import Callable
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
import torch

TINY = Path(__file__).parents[3] / "examples" / "tiny"


@pytest.fixture(scope="module")
def measuring() -> Any:
    """The module, with its neighbours on the path as its scripts have them."""
    sys.path.insert(0, str(TINY))
    try:
        yield importlib.import_module("measuring")
    finally:
        sys.path.remove(str(TINY))


class Model:
    """Writes the response that states `number_of(question)`, and continues from digits that are there already."""

    def __init__(self, world: ModuleType, tokenizer: Any, number_of: Callable[[Any], str]):
        self.world, self.tokenizer, self.number_of = world, tokenizer, number_of
        self.asked = {question.expression: question for question in world.all_questions()}

    def num_parameters(self) -> int:
        return 7

    def generate(self, *, input_ids: Any, attention_mask: Any, max_new_tokens: int, **options: Any) -> Any:
        rows = []
        for ids, mask in zip(input_ids.tolist(), attention_mask.tolist(), strict=True):
            text = self.tokenizer.decode([i for i, is_real in zip(ids, mask, strict=True) if is_real])
            question = self.asked[text.split("What is ")[1].split("?")[0]]
            said = text.split("assistant\n")[1]
            number = self.number_of(question)
            if said:
                begun = said.partition("=")[2].partition(".")[0]
                number = begun + number[len(begun) :]
            whole = self.tokenizer.encode(self.world.response_text(question, number), add_special_tokens=False)
            rows.append([*whole, self.tokenizer.eos_token_id][len(self.tokenizer.encode(said)) :][:max_new_tokens])
        pad = self.tokenizer.pad_token_id
        longest = max(map(len, rows))
        return torch.cat([input_ids, torch.tensor([row + [pad] * (longest - len(row)) for row in rows])], dim=1)


def mistaken(question: Any) -> str:
    """Wrong in every digit."""
    return "".join(str((int(digit) + 1) % 10) for digit in str(question.truth))


def test_help_is_worth_as_many_tokens_as_needed(measuring: Any) -> None:
    world = measuring.graded_world
    tokenizer = world.build_tokenizer()

    def knows_easy(question: Any) -> str:
        return str(question.truth) if question.grade == 1 else mistaken(question)

    def knows_most(question: Any) -> str:
        return str(question.truth) if question.grade < 5 else mistaken(question)

    student, teacher = Model(world, tokenizer, knows_easy), Model(world, tokenizer, knows_most)
    measured = measuring.measure_help(student, teacher, tokenizer)
    assert measured["num_teacher_dependent"] == sum(q.grade in (2, 3, 4) for q in world.all_questions())
    for num in measuring.HELP:
        shares = measured["teacher_dependent"][str(num)]["needed"]
        assert shares == {str(needed): float(num >= needed) for needed in measuring.HELP}
        by_grade = measured["all"][str(num)]["grade-needed"]
        assert by_grade[f"1-{num}"] == by_grade[f"4-{num}"] == 1.0
        assert by_grade[f"5-{num}"] == 0.0, "the teacher's mistake is copied"


def test_a_graded_model_alone(measuring: Any) -> None:
    world = measuring.graded_world
    tokenizer = world.build_tokenizer()
    model = Model(world, tokenizer, lambda q: str(q.truth) if q.family in "-+" else mistaken(q))
    measured = measuring.measure_graded(model, tokenizer)
    for key in ("accuracy_greedy", "accuracy_sampled"):
        assert measured[key]["needed"] == {"1": 1.0, "3": 1.0, "6": 0.0, "12": 0.0, "25": 0.0}
        for grade in world.GRADES:
            known = [q.family in "-+" for q in world.all_questions() if q.grade == grade]
            assert measured[key]["grade"][str(grade)] == pytest.approx(sum(known) / len(known), abs=1e-4)
        assert measured[key]["hash"] == 0.0
    assert set(measured["half_known"]["grade"].values()) == {0.0}
    assert (measured["num_parameters"], measured["command_share"], measured["well_formed_share"]) == (7, 0.0, None)


def test_a_plain_model_alone(measuring: Any) -> None:
    world = measuring.world
    tokenizer = world.build_tokenizer()
    model = Model(world, tokenizer, lambda q: str(q.truth) if q.family in "+" else mistaken(q))
    measured = measuring.measure_plain(model, tokenizer)
    assert measured["accuracy_greedy"] == measured["accuracy_sampled"] == {"add": 1.0, "mul": 0.0, "hash": 0.0}
    assert (measured["num_parameters"], measured["command_share"], measured["well_formed_share"]) == (7, 0.0, None)
    assert 30 < measured["mean_tokens_greedy"] < 50


def test_commands_are_counted(measuring: Any) -> None:
    shares = measuring.commands_in(["a<call>3</call>b<call>4</call>", "<call>x", "none", "none"])
    assert shares == {"command_share": 0.25, "well_formed_share": 0.6667}


def test_tables_name_grades_or_families(measuring: Any) -> None:
    grades = {str(grade): 0.1 * grade for grade in measuring.graded_world.GRADES}
    graded = {key: {"grade": grades} for key in ("accuracy_greedy", "accuracy_sampled", "half_known")}
    lines = measuring.accuracy_table({"measured": {"student": graded, "teacher": graded}}).splitlines()
    assert "grade 5" in lines[0] and len(lines) == 2 + 6
    plain = {"accuracy_greedy": {"add": 1.0, "mul": 0.5}, "accuracy_sampled": {"add": 0.9, "mul": 0.25}}
    head, _, *rows = measuring.accuracy_table({"measured": {"student": plain}}).splitlines()
    cells = [[cell.strip() for cell in line.strip("|").split("|")] for line in (head, *rows)]
    assert cells == [["", "add", "mul"], ["student, greedy", "100", "50"], ["student, sampled", "90", "25"]]
    helped = {
        str(num): {"needed": {str(need): float(num >= need) for need in measuring.HELP}} for num in measuring.HELP
    }
    table = measuring.help_table({"help": {"teacher_dependent": helped}})
    assert [cell.strip() for cell in table.splitlines()[4].strip("|").split("|")] == [
        "6",
        "0",
        "0",
        "100",
        "100",
        "100",
    ]
    table = measuring.help_table({"help": {"teacher_dependent": {num: {"needed": {}} for num in helped}}})
    assert table.splitlines()[4].count("–") == 5, "no question needs so many"
