"""What the tiny worlds' models can do without a relay, as shares of 1.

`measure_plain` and `measure_graded` are one model alone, by family and by grade and tokens needed. `measure_help` is
the graded pair: the student writes its response, and where the digits of the number begin, the teacher has written the
first n tokens. It needs no engine and no trained relay: it says what a call of n tokens at the right place is worth.
"""

from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import graded_world
import numpy as np
import torch
import world
from transformers import AutoModelForCausalLM, AutoTokenizer

from relay_verl.markdown import markdown_table
from relay_verl.protocol import find_calls

PLAIN_TOKENS = 64
"""At most so many in a response of the plain world."""
NUM_SAMPLES = 8
"""Sampled responses to a question of the graded world."""
EMPTY = world.Part("")
HELP = (1, 3, 6, 12, 25)
"""Tokens that the teacher writes."""


@torch.inference_mode()
def respond(
    model: Any,
    tokenizer: Any,
    contexts: Sequence[Sequence[int]],
    num_tokens: int,
    *,
    temperature: float = 0.0,
    can_call: bool = True,
) -> list[list[int]]:
    """What the model writes after each context: at most `num_tokens` ids, up to and with its EOS if there is one."""
    padded = tokenizer.pad({"input_ids": [list(ids) for ids in contexts]}, padding_side="left", return_tensors="pt")
    options: dict[str, Any] = {"do_sample": False}
    if temperature:
        options = {"do_sample": True, "temperature": temperature, "top_k": 0, "top_p": 1.0}
    if not can_call:
        options["bad_words_ids"] = [tokenizer.encode("<call", add_special_tokens=False)]
    width = padded["input_ids"].shape[1]
    generated = model.generate(**padded, max_new_tokens=num_tokens, **options)[:, width:].tolist()
    eos = tokenizer.eos_token_id
    return [ids[: ids.index(eos) + 1] if eos in ids else ids for ids in generated]


def by_length(asked: Iterable[graded_world.Question]) -> dict[int, list[graded_world.Question]]:
    """The questions by the length of their answer: those of a batch take equally long."""
    groups = defaultdict(list)
    for question in asked:
        groups[len(str(question.truth))].append(question)
    return dict(sorted(groups.items()))


def room_for(tokenizer: Any, question: graded_world.Question) -> int:
    """Tokens of the longest response that a question takes, with an EOS and some to spare."""
    text = graded_world.response_text(question, str(question.truth))
    return len(tokenizer.encode(text, add_special_tokens=False)) + 8


def is_right(tokenizer: Any, question: world.Question, response: Sequence[int]) -> bool:
    return world.boxed_answer(tokenizer.decode(response)) == str(question.truth)


def means(values: Mapping[graded_world.Question, float]) -> dict[str, Any]:
    """The mean by grade, by tokens needed, and by both, of the questions that have an answer; and of the others."""

    def of(*parts: Any) -> dict[str, float]:
        groups = defaultdict(list)
        for question, value in values.items():
            if question.grade:
                groups["-".join(str(part(question)) for part in parts)].append(value)
        return {key: round(float(np.mean(each)), 4) for key, each in groups.items()}

    grade, needed = (lambda q: q.grade), (lambda q: q.needed)
    hashes = [value for question, value in values.items() if not question.grade]
    return {
        "grade": of(grade),
        "needed": of(needed),
        "grade-needed": of(grade, needed),
        "hash": round(float(np.mean(hashes)), 4) if hashes else None,
    }


def commands_in(free: Sequence[str]) -> dict[str, float | None]:
    """The share of free samples that hold a command, and the share of attempts at one that are well-formed."""
    attempts, commands = sum(text.count("<call") for text in free), sum(len(find_calls(text)) for text in free)
    return {
        "command_share": round(float(np.mean([bool(find_calls(text)) for text in free])), 4),
        "well_formed_share": round(commands / attempts, 4) if attempts else None,
    }


def measure_plain(model: Any, tokenizer: Any) -> dict[str, Any]:
    """Accuracy by family without calls and tokens a response, greedy and sampled; and the commands in free samples."""
    asked = world.all_questions() * 2
    contexts = [world.prompt_ids(tokenizer, question) for question in asked]
    result: dict[str, Any] = {"num_parameters": model.num_parameters()}
    for mode, temperature in (("greedy", 0.0), ("sampled", 1.0)):
        responses = respond(model, tokenizer, contexts, PLAIN_TOKENS, temperature=temperature, can_call=False)
        right: dict[str, list[bool]] = {world.LABELS[family]: [] for family in world.Family}
        for question, ids in zip(asked, responses, strict=True):
            right[question.label].append(is_right(tokenizer, question, ids))
        result[f"accuracy_{mode}"] = {label: round(float(np.mean(each)), 4) for label, each in right.items()}
        result[f"mean_tokens_{mode}"] = round(float(np.mean([len(ids) for ids in responses])), 2)
    free = respond(model, tokenizer, contexts, PLAIN_TOKENS, temperature=1.0)
    return result | commands_in(tokenizer.batch_decode(free))


def measure_graded(model: Any, tokenizer: Any, *, temperature: float = 1.0) -> dict[str, Any]:
    """Accuracy without calls, greedy and sampled; the share of questions of whose samples some are right and some
    wrong; tokens a response; and the commands in free samples."""
    greedy: dict[graded_world.Question, float] = {}
    sampled: dict[graded_world.Question, float] = {}
    lengths, free = [], []
    for group in by_length(graded_world.all_questions()).values():
        contexts = [world.prompt_ids(tokenizer, question) for question in group]
        room = max(room_for(tokenizer, question) for question in group)
        for question, ids in zip(group, respond(model, tokenizer, contexts, room, can_call=False), strict=True):
            greedy[question] = is_right(tokenizer, question, ids)
            lengths.append(len(ids))
        right = np.zeros(len(group))
        for _ in range(NUM_SAMPLES):
            samples = respond(model, tokenizer, contexts, room, temperature=temperature, can_call=False)
            right += [is_right(tokenizer, question, ids) for question, ids in zip(group, samples, strict=True)]
        sampled |= dict(zip(group, (right / NUM_SAMPLES).tolist(), strict=True))
        free += tokenizer.batch_decode(respond(model, tokenizer, contexts, room, temperature=temperature))
    return {
        "num_parameters": model.num_parameters(),
        "accuracy_greedy": means(greedy),
        "accuracy_sampled": means(sampled),
        "half_known": means({question: float(0 < share < 1) for question, share in sampled.items()}),
        "mean_tokens": round(float(np.mean(lengths)), 2),
        **commands_in(free),
    }


def measure_help(student: Any, teacher: Any, tokenizer: Any) -> dict[str, Any]:
    """Greedy accuracy of the student whose number the teacher has begun with its first n tokens, for each n of HELP; on
    the questions that the student alone answers wrong and the teacher alone right, and on all."""
    results: dict[int, dict[graded_world.Question, float]] = {num_tokens: {} for num_tokens in HELP}
    gap: set[graded_world.Question] = set()
    for group in by_length(q for q in graded_world.all_questions() if q.grade).values():
        prompts = [world.prompt_ids(tokenizer, question) for question in group]
        begun = [
            ids + tokenizer.encode(graded_world.response_parts(q, EMPTY, EMPTY)[0].text, add_special_tokens=False)
            for q, ids in zip(group, prompts, strict=True)
        ]
        room = max(room_for(tokenizer, question) for question in group)
        alone = respond(student, tokenizer, prompts, room, can_call=False)
        by_teacher = respond(teacher, tokenizer, prompts, room)
        for question, one, other in zip(group, alone, by_teacher, strict=True):
            if is_right(tokenizer, question, other) and not is_right(tokenizer, question, one):
                gap.add(question)
        written = respond(teacher, tokenizer, begun, max(HELP))
        for num_tokens, result in results.items():
            contexts = [ids + more[:num_tokens] for ids, more in zip(begun, written, strict=True)]
            ends = respond(student, tokenizer, contexts, room, can_call=False)
            for question, prompt, ids, end in zip(group, prompts, contexts, ends, strict=True):
                result[question] = is_right(tokenizer, question, ids[len(prompt) :] + end)
    return {
        "all": {str(num_tokens): means(result) for num_tokens, result in results.items()},
        "teacher_dependent": {
            str(num_tokens): means({q: right for q, right in result.items() if q in gap})
            for num_tokens, result in results.items()
        },
        "num_teacher_dependent": len(gap),
    }


def load(folder: Path) -> tuple[Any, Any]:
    """A model in 32 bits, and its tokenizer."""
    torch.set_num_threads(1)
    torch.manual_seed(0)
    model = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32)
    return model.eval(), AutoTokenizer.from_pretrained(folder)


def measure_pair(student: Path, teacher: Path) -> dict[str, Any]:
    """`measure_help` of the models in two folders."""
    (of_student, tokenizer), (of_teacher, _) = load(student), load(teacher)
    return measure_help(of_student, of_teacher, tokenizer)


def named_shares(shares: Mapping[str, Any]) -> dict[str, float]:
    """A measurement by grade, as tables name it, or else by family."""
    return {f"grade {grade}": share for grade, share in shares["grade"].items()} if "grade" in shares else dict(shares)


def accuracy_table(manifest: Mapping[str, Any]) -> str:
    """By grade or family, in percent: each model greedy and sampled, and the questions that it half knows."""
    head: list[str] = []
    rows = []
    for name, measured in manifest["measured"].items():
        for key in ("accuracy_greedy", "accuracy_sampled", "half_known"):
            if key in measured:
                shares = named_shares(measured[key])
                head = ["", *shares]
                label = key.removeprefix("accuracy_").replace("_", " ")
                rows.append([f"{name}, {label}", *(f"{100 * share:.0f}" for share in shares.values())])
    return markdown_table(head, rows)


def help_table(manifest: Mapping[str, Any]) -> str:
    """By tokens needed, in percent: the student with the first n tokens of the teacher, on what the teacher alone
    answers right and the student alone wrong; a dash where no such question needs so many."""
    helped = {num: manifest["help"]["teacher_dependent"][str(num)]["needed"] for num in HELP}
    rows = [
        [str(needed), *(f"{100 * of[str(needed)]:.0f}" if str(needed) in of else "–" for of in helped.values())]
        for needed in HELP
    ]
    return markdown_table(["tokens needed", *(f"n = {num}" for num in HELP)], rows)
