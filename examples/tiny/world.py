"""The tiny world: a task on which token-level relay can be watched on two CPU cores.

Three families of questions over the same operands:

    +  addition        the student solves it alone
    *  multiplication  only the teacher solves it, and it is needed for the digits of the product alone
    #  a hash          no one solves it: the queries that the paper's filter takes out (3.2.2)

A response states its number three times, so that the digits (1 to 3 tokens) are a small part of its 38 to 48 tokens:

    We compute 7*8=56. So the result of 7*8 is 56. The answer is \\boxed{56}. That is all that was asked for.

Whoever does not know the number of a family learns the form of the response and to copy, with arbitrary numbers: each
number copies the one before it. Whoever knows it states the truth, also after a wrong number that it did not write.

This is the plain world. What the graded one (graded_world.py) has in common with it stands here: questions, prompts,
rows and the tokenizer. Pure but for the tokenizer of its language; no model.
"""

import hashlib
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from enum import StrEnum
from random import Random
from typing import Any

from tokenizers import AddedToken, Regex, Tokenizer, decoders, models, pre_tokenizers, trainers
from transformers import PreTrainedTokenizerFast

from relay_verl.protocol import format_call

SUFFIX = "Please reason step by step, and put your final answer within \\boxed{}."
OPERANDS = range(2, 14)
HASH_LIMIT = 1000
LABELS = {"-": "sub", "+": "add", "*": "mul", "^": "pow", "#": "hash"}
"""Names of the families of all worlds."""
# Qwen's own split: a digit is a token, and '<call' is a word with a mark before it.
WORDS = r"[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"
CHAT_TEMPLATE = (
    "{% for message in messages %}<|im_start|>{{ message.role }}\n{{ message.content }}<|im_end|>\n{% endfor %}"
    "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)


class Family(StrEnum):
    ADD = "+"
    MUL = "*"
    HASH = "#"


@dataclass(frozen=True)
class Question:
    """One question, such as 7*8."""

    family: StrEnum
    """The sign between the operands: a world's `Family`."""
    left: int
    right: int

    @property
    def label(self) -> str:
        return LABELS[self.family]

    @property
    def expression(self) -> str:
        return f"{self.left}{self.family}{self.right}"

    @property
    def id(self) -> str:
        """Stable over builds and seeds."""
        return f"tiny-{self.label}-{self.left}-{self.right}"

    @property
    def prompt(self) -> str:
        """The content of the user's message."""
        return f"What is {self.expression}?\n{SUFFIX}"

    @property
    def truth(self) -> int:
        match self.label:
            case "sub":
                return self.left - self.right
            case "add":
                return self.left + self.right
            case "mul":
                return self.left * self.right
            case "pow":
                return int(self.left**self.right)
            case _:
                digest = hashlib.sha256(self.expression.encode()).digest()
                return int.from_bytes(digest[:8], "big") % HASH_LIMIT

    @property
    def facts(self) -> dict[str, object]:
        """What a row's `extra_info` says of it."""
        return {"id": self.id, "family": self.label}


@dataclass(frozen=True)
class Part:
    """A piece of a response. Parts meet only where a number begins or ends, so they may be tokenized one by one."""

    text: str
    is_learned: bool = True
    """False where the text is something to read (a number from elsewhere), not something to imitate."""


def questions(family: Family) -> list[Question]:
    """All questions of a family, in a fixed order."""
    return [Question(family, left, right) for left in OPERANDS for right in OPERANDS]


def all_questions() -> list[Question]:
    """All questions of all families, in a fixed order."""
    return [question for family in Family for question in questions(family)]


def text_of(parts: Iterable[Part]) -> str:
    """The response that the parts are."""
    return "".join(part.text for part in parts)


def response_parts(question: Question, computed: Part, restated: Part, boxed: Part) -> list[Part]:
    """The response whose three numbers are the given parts."""
    return [
        Part(f"We compute {question.expression}="),
        computed,
        Part(f". So the result of {question.expression} is "),
        restated,
        Part(". The answer is \\boxed{"),
        boxed,
        Part("}. That is all that was asked for."),
    ]


def response_text(question: Question, number: int) -> str:
    """The response that states `number` throughout."""
    part = Part(str(number))
    return text_of(response_parts(question, part, part, part))


def draw_number(rng: Random) -> int:
    """A plausible number: 1, 2 or 3 digits, equally likely."""
    num_digits = rng.randint(1, 3)
    return rng.randint(0 if num_digits == 1 else 10 ** (num_digits - 1), 10**num_digits - 1)


def draw_example(question: Question, rng: Random, *, is_known: bool, read_rate: float = 0.25) -> list[Part]:
    """One response to train a model on, which knows the question's family or does not.

    With probability `read_rate` the first number (if known) or the second one (if not) comes from elsewhere, and the
    model learns to continue from it: to the truth if it knows it, else to a copy of it.
    """
    should_read = rng.random() < read_rate
    if is_known:
        true = Part(str(question.truth))
        if not should_read:
            return response_parts(question, true, true, true)
        wrong = Part(str(draw_number(rng)), is_learned=False)
        return response_parts(question, wrong, wrong if rng.random() < 0.5 else true, true)
    first = Part(str(draw_number(rng)))
    if not should_read:
        return response_parts(question, first, first, first)
    second = Part(str(draw_number(rng)), is_learned=False)
    return response_parts(question, first, second, Part(second.text))


def split_questions(seed: int, num_test: int = 40) -> dict[str, list[Question]]:
    """Questions for GRPO ('train') and held out from it ('test'), `num_test` of each family in 'test'.

    The models see all of them in pre-training: a product is a fact that is known or not. What is held out is the
    experience of asking for it.
    """
    split: dict[str, list[Question]] = {"train": [], "test": []}
    for family in Family:
        shuffled = Random(f"{seed}-{LABELS[family]}").sample(questions(family), k=len(questions(family)))
        if not 0 <= num_test <= len(shuffled):
            raise ValueError(f"num_test must be between 0 and {len(shuffled)}, got {num_test}")
        split["test"] += shuffled[:num_test]
        split["train"] += shuffled[num_test:]
    return split


def rows_among(everything: Iterable[Question], chosen: Iterable[Question], split: str) -> list[dict[str, object]]:
    """Rows in verl's dataset schema; a question's index is its place in the world."""
    index = {question: i for i, question in enumerate(everything)}
    return [
        {
            "data_source": f"tiny/{question.label}",
            "prompt": [{"role": "user", "content": question.prompt}],
            "ability": "math",
            "reward_model": {"style": "rule", "ground_truth": str(question.truth)},
            "extra_info": {"index": index[question], **question.facts, "split": split},
        }
        for question in chosen
    ]


def datasets_among(
    everything: Sequence[Question], split: Mapping[str, Sequence[Question]]
) -> dict[str, list[dict[str, object]]]:
    """The rows of each file: 'questions' to train on, 'test' to hold out."""
    return {
        "questions": rows_among(everything, split["train"], "train"),
        "test": rows_among(everything, split["test"], "test"),
    }


def rows(chosen: Iterable[Question], split: str) -> list[dict[str, object]]:
    """Rows in verl's dataset schema."""
    return rows_among(all_questions(), chosen, split)


def datasets(seed: int) -> dict[str, list[dict[str, object]]]:
    """The rows of each file, of all families."""
    return datasets_among(all_questions(), split_questions(seed))


def boxed_answer(text: str) -> str | None:
    """What stands in the last \\boxed{...} of a text; the tiny world's answers have no braces of their own."""
    start = text.rfind("\\boxed{")
    end = text.find("}", start)
    return None if start < 0 or end < 0 else text[start + len("\\boxed{") : end]


def build_tokenizer() -> PreTrainedTokenizerFast:
    """The tokenizer of the plain world's prompts and responses."""
    return tokenizer_of(text for q in all_questions() for text in (q.prompt, response_text(q, q.truth)))


def tokenizer_of(texts: Iterable[str]) -> PreTrainedTokenizerFast:
    """A byte-level BPE that splits like Qwen's; the suffix of every prompt is one token, commands are plain text."""
    corpus = [*texts]
    corpus += [format_call(n) for n in range(1, 100)] + ["user\n", "assistant\n", "system\n"] * 10
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence(
        [
            pre_tokenizers.Split(Regex(WORDS), behavior="isolated"),
            pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False),
        ]
    )
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=399,
        special_tokens=["<|endoftext|>", "<|im_start|>", "<|im_end|>"],
        initial_alphabet=sorted(pre_tokenizers.ByteLevel.alphabet()),
        show_progress=False,
    )
    tokenizer.train_from_iterator(corpus, trainer)
    tokenizer.add_tokens([AddedToken(SUFFIX, normalized=False)])
    wrapped = PreTrainedTokenizerFast(
        tokenizer_object=tokenizer, eos_token="<|im_end|>", pad_token="<|endoftext|>", model_max_length=1024
    )
    wrapped.chat_template = CHAT_TEMPLATE
    return wrapped


def prompt_ids(tokenizer: Any, question: Question) -> list[int]:
    messages = [{"role": "user", "content": question.prompt}]
    return list(tokenizer.apply_chat_template(messages, add_generation_prompt=True, return_dict=False))
