"""The tiny world's task: what is asked, what is true, and what a model may learn from an example. No training."""

import importlib.util
import sys
from collections import Counter
from pathlib import Path
from random import Random
from types import ModuleType
from typing import Any

import pytest

from relay_verl.protocol import format_call


def load_world() -> ModuleType:
    """examples/ is not a package; the module is loaded by its place in the repository."""
    path = Path(__file__).parents[3] / "examples" / "tiny" / "world.py"
    spec = importlib.util.spec_from_file_location("tiny_world", path)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules["tiny_world"] = module  # dataclasses look their module up there
    spec.loader.exec_module(module)
    return module


world = load_world()
ADD, MUL, HASH = world.Family


@pytest.mark.parametrize(
    ("family", "left", "right", "truth"),
    [
        (ADD, 7, 8, 15),
        (MUL, 7, 8, 56),
        (MUL, 13, 13, 169),  # the largest product still has three digits
        (HASH, 7, 8, 203),  # a change of the hash would change every dataset in silence
    ],
)
def test_truth(family: str, left: int, right: int, truth: int) -> None:
    assert world.Question(family, left, right).truth == truth


def test_a_family_asks_each_question_once() -> None:
    for family in world.Family:
        asked = world.questions(family)
        assert len(asked) == len(set(asked)) == 144
        assert all(0 <= q.truth < 1000 for q in asked)
    assert len({q.id for family in world.Family for q in world.questions(family)}) == 432


def test_prompt_ends_in_the_paper_s_suffix() -> None:
    prompt = world.Question(MUL, 12, 3).prompt
    assert prompt == ("What is 12*3?\nPlease reason step by step, and put your final answer within \\boxed{}.")


def test_response_states_its_number_three_times() -> None:
    text = world.response_text(world.Question(MUL, 7, 8), 56)
    said = "We compute 7*8=56. So the result of 7*8 is 56. The answer is \\boxed{56}."
    assert text == f"{said} That is all that was asked for."
    assert world.boxed_answer(text) == "56"


@pytest.mark.parametrize(
    ("text", "answer"),
    [
        ("", None),
        ("The answer is 56.", None),
        ("\\boxed{56", None),  # cut off by the length limit
        ("}\\boxed{5}", "5"),
        ("\\boxed{5} no, \\boxed{6}", "6"),
    ],
)
def test_boxed_answer(text: str, answer: str | None) -> None:
    assert world.boxed_answer(text) == answer


def numbers(parts: list) -> tuple[str, str, str]:
    return parts[1].text, parts[3].text, parts[5].text


def learned(parts: list) -> tuple[bool, bool, bool]:
    return parts[1].is_learned, parts[3].is_learned, parts[5].is_learned


@pytest.mark.parametrize("read_rate", [0.0, 0.5, 1.0])
def test_who_knows_learns_the_truth_alone(read_rate: float) -> None:
    rng, question = Random(0), world.Question(MUL, 7, 8)
    for _ in range(200):
        parts = world.draw_example(question, rng, is_known=True, read_rate=read_rate)
        for text, is_learned in zip(numbers(parts), learned(parts), strict=True):
            assert text == "56" or not is_learned, "a wrong number is read, never learned"
        assert numbers(parts)[2] == "56", "the answer is right after any number before it"
        assert all(learned(parts)) or read_rate > 0


@pytest.mark.parametrize("read_rate", [0.0, 0.5, 1.0])
def test_who_does_not_know_learns_to_copy(read_rate: float) -> None:
    rng, question, right = Random(0), world.Question(MUL, 7, 8), 0
    for _ in range(2000):
        parts = world.draw_example(question, rng, is_known=False, read_rate=read_rate)
        first, second, boxed = numbers(parts)
        assert boxed == second, "the answer copies the number before it"
        assert second == first or not parts[3].is_learned, "a number from elsewhere is read, never learned"
        right += first == "56"
    assert right < 20, "the truth is not likelier than any other number of two digits"


def test_drawn_numbers_have_each_length_equally_often() -> None:
    rng = Random(0)
    lengths = Counter(len(str(world.draw_number(rng))) for _ in range(3000))
    assert set(lengths) == {1, 2, 3}
    assert all(900 < count < 1100 for count in lengths.values())


@pytest.fixture(scope="module")
def tokenizer() -> Any:
    return world.build_tokenizer()


def test_parts_have_the_ids_of_the_whole(tokenizer: Any) -> None:
    """So a model trained on examples tokenized part by part meets the ids that a sampled response would have."""
    question = world.Question(MUL, 12, 7)
    parts = world.draw_example(question, Random(0), is_known=True, read_rate=0)
    by_part = [i for part in parts for i in tokenizer.encode(part.text, add_special_tokens=False)]
    assert by_part == tokenizer.encode(world.response_text(question, 84), add_special_tokens=False)
    assert 31 <= len(by_part) + 1 <= 43


def test_prompt_is_chatml_with_the_suffix_as_one_token(tokenizer: Any) -> None:
    ids = world.prompt_ids(tokenizer, world.Question(MUL, 7, 8))
    text = f"<|im_start|>user\nWhat is 7*8?\n{world.SUFFIX}<|im_end|>\n<|im_start|>assistant\n"
    assert tokenizer.decode(ids) == text
    assert ids == tokenizer.encode(text, add_special_tokens=False)
    assert ids.count(tokenizer.convert_tokens_to_ids(world.SUFFIX)) == 1
    assert len(ids) <= 20


def test_template_takes_enable_thinking(tokenizer: Any) -> None:
    """The recipes pass it for Qwen3; here both modes are the same."""
    messages = [{"role": "user", "content": "What is 7*8?"}]
    texts = {
        tokenizer.apply_chat_template(messages, tokenize=False, add_generation_prompt=True, enable_thinking=mode)
        for mode in (True, False)
    }
    assert texts == {"<|im_start|>user\nWhat is 7*8?<|im_end|>\n<|im_start|>assistant\n"}


@pytest.mark.parametrize("num_tokens", [7, 70, 123])
def test_command_is_plain_text_of_several_tokens(tokenizer: Any, num_tokens: int) -> None:
    ids = tokenizer.encode(format_call(num_tokens), add_special_tokens=False)
    assert 4 <= len(ids) <= 8
    assert not set(ids) & set(tokenizer.all_special_ids)
    assert tokenizer.decode(ids, skip_special_tokens=True) == format_call(num_tokens)


def test_tokenizer_reads_any_text(tokenizer: Any) -> None:
    text = " Ünï </call>. <call >x\n\n9"
    assert tokenizer.decode(tokenizer.encode(text, add_special_tokens=False)) == text
    assert tokenizer.eos_token == "<|im_end|>"
    assert tokenizer.pad_token == "<|endoftext|>"


def test_building_the_tokenizer_twice_gives_the_same(tokenizer: Any) -> None:
    assert world.build_tokenizer().backend_tokenizer.to_str() == tokenizer.backend_tokenizer.to_str()


def test_split_holds_questions_out_of_training() -> None:
    split = world.split_questions(seed=0, num_test=40)
    assert not set(split["train"]) & set(split["test"])
    assert Counter(q.family for q in split["test"]) == dict.fromkeys(world.Family, 40)
    assert Counter(q.family for q in split["train"]) == dict.fromkeys(world.Family, 104)
    assert split == world.split_questions(seed=0, num_test=40)
    assert split != world.split_questions(seed=1, num_test=40)


@pytest.mark.parametrize("num_test", [-1, 145])
def test_split_names_a_bad_size(num_test: int) -> None:
    with pytest.raises(ValueError, match="num_test"):
        world.split_questions(0, num_test)


def test_datasets_hold_all_families() -> None:
    families = {
        name: Counter(row["extra_info"]["family"] for row in rows) for name, rows in world.datasets(seed=0).items()
    }
    assert families == {
        "questions": {"add": 104, "mul": 104, "hash": 104},
        "test": {"add": 40, "mul": 40, "hash": 40},
    }


def test_rows_have_verl_s_schema() -> None:
    [row] = world.rows([world.Question(MUL, 7, 8)], "train")
    index = row["extra_info"].pop("index")
    assert row == {
        "data_source": "tiny/mul",
        "prompt": [{"role": "user", "content": world.Question(MUL, 7, 8).prompt}],
        "ability": "math",
        "reward_model": {"style": "rule", "ground_truth": "56"},
        "extra_info": {"id": "tiny-mul-7-8", "family": "mul", "split": "train"},
    }
    assert isinstance(index, int)


def test_index_of_a_question_is_the_same_in_every_dataset() -> None:
    question = world.Question(HASH, 5, 5)
    [alone] = world.rows([question], "test")
    among = world.rows([*world.questions(ADD), question], "train")[-1]
    assert alone["extra_info"]["index"] == among["extra_info"]["index"]
