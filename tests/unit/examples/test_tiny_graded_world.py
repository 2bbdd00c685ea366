"""The graded tiny world: what is asked, what is true, and what a model may learn from an example. No training."""

import importlib
import sys
from collections import Counter
from pathlib import Path
from random import Random
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from relay_verl.protocol import format_call


def load(name: str) -> Any:
    """A module of examples/tiny, with its neighbours on the path as its scripts have them."""
    sys.path.insert(0, str(Path(__file__).parents[3] / "examples" / "tiny"))
    try:
        return importlib.import_module(name)
    finally:
        sys.path.pop(0)


world, plain = load("graded_world"), load("world")
SUB, ADD, MUL, POW, HASH = world.Family


PLAIN = world.Knowledge((1.0,) * 5, 0.1)


@pytest.mark.parametrize(
    ("family", "left", "right", "truth"),
    [
        (SUB, 83, 76, 7),
        (ADD, 512, 61, 573),
        (MUL, 512, 345, 176640),
        (POW, 563, 4, 100469346961),
        (POW, 569, 9, 6251876603747271565460729),
        (HASH, 7, 8, 203),  # a change of the hash would change every dataset in silence
    ],
)
def test_truth(family: str, left: int, right: int, truth: int) -> None:
    assert world.Question(family, left, right).truth == truth


def test_every_question_is_asked_once() -> None:
    asked = world.all_questions()
    assert len(asked) == len(set(asked)) == len({q.id for q in asked}) == 576
    assert asked == [question for family in world.Family for question in world.questions(family)]


def test_each_grade_has_each_length() -> None:
    """As many of each as are for training and held out together."""
    counts = Counter((q.grade, q.needed) for q in world.all_questions())
    expected = {
        (grade, form.num_digits): num_train + form.num_test
        for form in world.FORMS
        for grade, num_train in zip(world.GRADES, form.num_train, strict=True)
    }
    assert counts == expected | {(0, 0): 96}


def test_needed_is_the_length_of_the_answer_and_the_grade_grows_with_the_left_operand() -> None:
    for family in world.Family:
        for needed in {q.needed for q in world.questions(family)}:
            alike = sorted((q for q in world.questions(family) if q.needed == needed), key=lambda q: q.left)
            assert [q.grade for q in alike] == sorted(q.grade for q in alike)
            assert all(len(str(q.truth)) == needed or family is HASH for q in alike)


def test_response_states_its_number_twice() -> None:
    text = world.response_text(world.Question(SUB, 83, 76), "7")
    assert text == "We compute 83-76=7. So the answer is \\boxed{7}. That is all that was asked for."
    assert plain.boxed_answer(text) == "7"


@given(st.floats(0, 1), st.floats(0.01, 1))
def test_who_knows_more_is_told_more(known: float, width: float) -> None:
    """Digit rates fall with the hardness of a question, are 1/2 where the known end, and grow with what is known."""
    knowledge = world.Knowledge((known,) * 5, width)
    alike = [q for q in world.questions(MUL) if q.grade == 3]
    rates = [knowledge.digit_rate(q) for q in sorted(alike, key=world.hardness)]
    assert rates == sorted(rates, reverse=True) and set(rates) <= {max(0.0, min(1.0, rate)) for rate in rates}
    assert abs(sum(rate > 0.5 for rate in rates) - known * len(rates)) <= 1
    more = world.Knowledge((min(1.0, known + 0.2),) * 5, width)
    assert all(more.digit_rate(q) >= rate for q, rate in zip(sorted(alike, key=world.hardness), rates, strict=True))


def test_hardness_is_spread_evenly_over_each_grade() -> None:
    for needed in (1, 25):
        for grade in world.GRADES:
            alike = [q for q in world.all_questions() if (q.grade, q.needed) == (grade, needed)]
            count = len(alike)
            assert sorted(world.hardness(q) for q in alike) == pytest.approx([(i + 0.5) / count for i in range(count)])


def told(question: Any, knowledge: Any, num: int = 2000) -> list[str]:
    rng = Random(0)
    return [world.draw_number(question, knowledge, rng) for _ in range(num)]


def test_who_knows_is_told_the_truth_alone() -> None:
    question = world.questions(POW)[-1]
    assert set(told(question, world.Knowledge((2.0,) * 5, 0.1))) == {str(question.truth)}


@pytest.mark.parametrize("question", [world.questions(MUL)[-1], world.Question(HASH, 502, 8)], ids=str)
def test_who_does_not_know_is_told_any_digits(question: Any) -> None:
    numbers = told(question, world.Knowledge((-1.0,) * 5, 0.1))
    assert {len(number) for number in numbers} == {len(str(question.truth))}
    for digits in zip(*numbers, strict=True):
        assert all(140 < count < 260 for count in Counter(digits).values()), "every digit is equally likely"


def test_half_known_digits_are_told_independently() -> None:
    """So a right beginning does not tell the rest: the teacher is needed to the last digit."""
    question = world.questions(MUL)[0]
    half = world.Knowledge((world.hardness(question),) * 5, 0.1)
    assert half.digit_rate(question) == pytest.approx(0.5)
    right = [[a == b for a, b in zip(number, str(question.truth), strict=True)] for number in told(question, half)]
    shares = [sum(column) / len(right) for column in zip(*right, strict=True)]
    assert all(0.45 < share < 0.55 for share in shares)
    begun = [row[-1] for row in right if all(row[:-1])]
    assert 0.25 < sum(begun) / len(begun) < 0.75 and len(begun) > 20
    assert all(len(set(column)) == 2 for column in zip(*told(question, half), strict=True)), "one mistake a digit"


def test_an_example_copies_its_number() -> None:
    question, rng = world.questions(ADD)[0], Random(0)
    for _ in range(100):
        parts = world.draw_example(question, rng, world.Knowledge((0.5,) * 5, 1.0))
        assert parts[1].text == parts[3].text


@pytest.fixture(scope="module")
def tokenizer() -> Any:
    return world.build_tokenizer()


def test_parts_have_the_ids_of_the_whole(tokenizer: Any) -> None:
    """So a model trained on examples tokenized part by part meets the ids that a sampled response would have."""
    for question in (world.questions(SUB)[0], world.questions(POW)[-1]):
        parts = world.draw_example(question, Random(0), PLAIN)
        by_part = [i for part in parts for i in tokenizer.encode(part.text, add_special_tokens=False)]
        assert by_part == tokenizer.encode(world.response_text(question, parts[1].text), add_special_tokens=False)
        assert 29 <= len(by_part) + 1 <= 78


def test_needed_is_a_number_of_tokens(tokenizer: Any) -> None:
    for question in world.all_questions():
        ids = tokenizer.encode(str(question.truth), add_special_tokens=False)
        assert len(ids) == question.needed or question.family is HASH


def test_prompt_is_chatml_with_the_suffix_as_one_token(tokenizer: Any) -> None:
    ids = plain.prompt_ids(tokenizer, world.Question(MUL, 7, 8))
    text = f"<|im_start|>user\nWhat is 7*8?\n{plain.SUFFIX}<|im_end|>\n<|im_start|>assistant\n"
    assert tokenizer.decode(ids) == text
    assert ids == tokenizer.encode(text, add_special_tokens=False)
    assert ids.count(tokenizer.convert_tokens_to_ids(plain.SUFFIX)) == 1
    assert len(ids) <= 20


@pytest.mark.parametrize("num_tokens", [7, 70, 123])
def test_command_is_plain_text_of_several_tokens(tokenizer: Any, num_tokens: int) -> None:
    ids = tokenizer.encode(format_call(num_tokens), add_special_tokens=False)
    assert 4 <= len(ids) <= 8
    assert not set(ids) & set(tokenizer.all_special_ids)
    assert tokenizer.decode(ids, skip_special_tokens=True) == format_call(num_tokens)


def test_split_holds_questions_out_of_training() -> None:
    split = world.split_questions(seed=0)
    assert not set(split["train"]) & set(split["test"])
    assert sorted(q.id for part in split.values() for q in part) == sorted(q.id for q in world.all_questions())
    assert Counter(q.grade for q in split["test"]) == dict.fromkeys((0, *world.GRADES), 40)
    assert Counter(q.grade for q in split["train"]) == {0: 56, 1: 19, 2: 37, 3: 56, 4: 83, 5: 85}
    for part in split.values():
        assert {(q.grade, q.needed) for q in part} == {(q.grade, q.needed) for q in world.all_questions()}
    assert split == world.split_questions(seed=0)
    assert split != world.split_questions(seed=1)


def test_datasets_hold_all_families() -> None:
    families = {
        name: Counter(row["extra_info"]["family"] for row in rows) for name, rows in world.datasets(seed=0).items()
    }
    assert families == {
        "questions": {"sub": 90, "add": 90, "mul": 60, "pow": 40, "hash": 56},
        "test": {"sub": 60, "add": 60, "mul": 40, "pow": 40, "hash": 40},
    }


def test_rows_have_verl_s_schema() -> None:
    question = world.questions(MUL)[-1]
    [row] = world.rows([question], "train")
    index = row["extra_info"].pop("index")
    assert row == {
        "data_source": "tiny/mul",
        "prompt": [{"role": "user", "content": question.prompt}],
        "ability": "math",
        "reward_model": {"style": "rule", "ground_truth": str(question.truth)},
        "extra_info": {"id": question.id, "family": "mul", "grade": 5, "needed": 6, "split": "train"},
    }
    assert isinstance(index, int)


def test_index_of_a_question_is_the_same_in_every_dataset() -> None:
    question = world.Question(HASH, 502, 5)
    [alone] = world.rows([question], "test")
    among = world.rows([*world.questions(ADD), question], "train")[-1]
    assert alone["extra_info"]["index"] == among["extra_info"]["index"]
