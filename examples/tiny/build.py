"""Build the tiny world's models and data: a student, its warmed-up copy, a teacher, and verl datasets.

    python examples/tiny/build.py --out DIR [--seed 0] [--steps-scale 1.0] [--force]

    DIR/student        knows '+'          DIR/train.parquet             '+' and '*', as the paper's filter leaves it
    DIR/student_warm   writes commands    DIR/train_unfiltered.parquet  '#' too
    DIR/teacher        knows '+' and '*'  DIR/test.parquet              questions of all three that GRPO never sees
                                          DIR/manifest.json             settings, versions, measurements; written last

Takes a few minutes on two cores: tiny matrices gain nothing from a second thread, so the student and the teacher train
side by side, one thread each. A second run goes on where a stopped one ended.

Warm-up (paper 3.1), with two departures for the tiny world:
1. Most samples get no command. With a command in most of them GRPO soon calls in every response, nobody in a group
   answers alone, and independence is never rewarded.
2. Lengths are d * 10^k with k of 0 or 1, as a whole response has some 40 tokens.
"""

import argparse
import hashlib
import json
import multiprocessing
import shutil
from collections.abc import Callable, Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import asdict, dataclass, replace
from importlib.metadata import version
from pathlib import Path
from random import Random
from time import perf_counter
from typing import Any

import numpy as np
import pandas as pd
import torch
from tokenizers import AddedToken, Regex, Tokenizer, decoders, models, pre_tokenizers, trainers
from tqdm import tqdm
from transformers import AutoModelForCausalLM, AutoTokenizer, PreTrainedTokenizerFast, Qwen3Config, Qwen3ForCausalLM
from world import SUFFIX, Family, Question, boxed_answer, draw_example, questions, response_text, rows, split_questions

from relay_verl.data.warmup import insert_calls
from relay_verl.protocol import find_calls, format_call

IGNORED = -100
MAX_NEW_TOKENS = 64
# Qwen's own split: a digit is a token, and '<call' is a word with a mark before it.
WORDS = r"[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"
CHAT_TEMPLATE = (
    "{% for message in messages %}<|im_start|>{{ message.role }}\n{{ message.content }}<|im_end|>\n{% endfor %}"
    "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)


@dataclass(frozen=True)
class Pretraining:
    """One model's size, knowledge and schedule."""

    known: str
    """Families whose numbers the model is told, as '+*'."""
    width: int
    num_layers: int
    steps: int
    learning_rate: float
    family_weights: tuple[int, int, int]
    """Shares of '+', '*' and '#' in a batch."""
    read_rate: float
    """Share of examples with a number that the model reads and did not write."""
    call_rate: float = 0.0
    """Share of examples with commands that the model reads and does not learn to write."""
    batch_size: int = 48


@dataclass(frozen=True)
class Warmup:
    """The call warm-up of the student (paper 3.1)."""

    call_probabilities: tuple[float, ...] = (0.75, 0.15, 0.06, 0.04)
    """Of 0, 1, 2, 3 commands in a sample."""
    max_exponent: int = 1
    samples_per_question: int = 6
    steps: int = 250
    learning_rate: float = 5e-3
    batch_size: int = 48


@dataclass(frozen=True)
class Settings:
    seed: int = 0
    student: Pretraining = Pretraining("+", 64, 2, 1000, 5e-3, (2, 1, 1), read_rate=0.25, call_rate=0.5)
    teacher: Pretraining = Pretraining("+*", 128, 3, 600, 5e-3, (1, 2, 1), read_rate=0.4)
    warmup: Warmup = Warmup()

    def scaled(self, factor: float) -> "Settings":
        def scale(stage: Any) -> Any:
            return replace(stage, steps=max(1, round(stage.steps * factor)))

        return replace(self, student=scale(self.student), teacher=scale(self.teacher), warmup=scale(self.warmup))


def build_tokenizer() -> PreTrainedTokenizerFast:
    """A byte-level BPE that splits like Qwen's; the suffix of every prompt is one token, commands are plain text."""
    corpus = [text for f in Family for q in questions(f) for text in (q.prompt, response_text(q, q.truth))]
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


@dataclass(frozen=True)
class Batchable:
    """Sequences for training, padded on the right."""

    input_ids: torch.Tensor  # [example, length]
    labels: torch.Tensor  # [example, length], IGNORED where nothing is learned
    lengths: torch.Tensor  # [example]

    @classmethod
    def pack(cls, examples: Sequence[Sequence[tuple[int, int]]], pad_id: int) -> "Batchable":
        """From (id, label) pairs."""
        lengths = torch.tensor([len(example) for example in examples])
        packed = torch.tensor([pad_id, IGNORED]).repeat(len(examples), int(lengths.max()), 1)
        for row, example in enumerate(examples):
            packed[row, : len(example)] = torch.tensor(example)
        return cls(packed[..., 0].contiguous(), packed[..., 1].contiguous(), lengths)


def pretraining_examples(tokenizer: Any, stage: Pretraining, count: int, rng: Random) -> Batchable:
    """Draw and tokenize every example once; a batch is then a row index."""
    drawn = []
    for family in rng.choices(list(Family), weights=stage.family_weights, k=count):
        question = rng.choice(questions(family))
        is_known = family.value in stage.known
        drawn.append((question, draw_example(question, rng, is_known=is_known, read_rate=stage.read_rate)))
    prompts = {q: prompt_ids(tokenizer, q) for q in {q for q, _ in drawn}}
    texts = sorted({part.text for _, parts in drawn for part in parts})
    encoded = dict(zip(texts, tokenizer(texts, add_special_tokens=False)["input_ids"], strict=True))
    calls = np.random.default_rng(rng.getrandbits(32))
    examples = []
    for question, parts in drawn:
        response = [(i, i if part.is_learned else IGNORED) for part in parts for i in encoded[part.text]]
        response.append((tokenizer.eos_token_id, tokenizer.eos_token_id))
        if rng.random() < stage.call_rate:
            places = insert_calls(
                [~i for i in range(len(response))], tokenizer, calls, num_calls=rng.randint(1, 3), max_exponent=1
            )
            response = [response[~i] if i < 0 else (i, IGNORED) for i in places]
        prompt = [(i, IGNORED) for i in prompts[question]]
        examples.append(prompt + response)
    return Batchable.pack(examples, tokenizer.pad_token_id)


def train(model: Any, data: Batchable, stage: Pretraining | Warmup, seed: int, name: str, position: int) -> None:
    """Plain supervised training; causal attention and right padding need no mask."""
    matrices = [p for name, p in model.named_parameters() if p.ndim == 2 and "embed" not in name]
    others = [p for name, p in model.named_parameters() if p.ndim != 2 or "embed" in name]
    rate = stage.learning_rate
    optimizers = [
        torch.optim.Muon(matrices, lr=rate, weight_decay=0.0, adjust_lr_fn="match_rms_adamw"),
        torch.optim.AdamW(others, lr=rate, weight_decay=0.0),
    ]
    schedules = [
        torch.optim.lr_scheduler.OneCycleLR(o, rate, total_steps=stage.steps + 1, pct_start=0.1, cycle_momentum=False)
        for o in optimizers
    ]
    generator = torch.Generator().manual_seed(seed)
    model.train()
    progress = tqdm(range(stage.steps), desc=name, position=position, mininterval=1)
    for step in progress:
        chosen = torch.randint(len(data.lengths), (stage.batch_size,), generator=generator)
        length = int(data.lengths[chosen].max())
        logits = model(input_ids=data.input_ids[chosen, : length - 1], use_cache=False).logits
        labels = data.labels[chosen, 1:length]
        loss = torch.nn.functional.cross_entropy(logits.flatten(0, 1), labels.flatten(), ignore_index=IGNORED)
        model.zero_grad()
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        for update in (*optimizers, *schedules):
            update.step()
        if step % 50 == 0:
            progress.set_postfix(loss=f"{loss.item():.3f}")
    model.eval()


@torch.inference_mode()
def respond(
    model: Any, tokenizer: Any, asked: Sequence[Question], *, is_greedy: bool, can_call: bool = True
) -> list[list[int]]:
    """The model's own response to each question; up to and with its EOS if there is one."""
    prompts = [prompt_ids(tokenizer, q) for q in asked]
    padded = tokenizer.pad({"input_ids": prompts}, padding_side="left", return_tensors="pt")
    sampling: dict[str, Any] = (
        {"do_sample": False} if is_greedy else {"do_sample": True, "temperature": 1.0, "top_k": 0}
    )
    if not can_call:
        sampling["bad_words_ids"] = [tokenizer.encode("<call", add_special_tokens=False)]
    width = padded["input_ids"].shape[1]
    generated = model.generate(**padded, max_new_tokens=MAX_NEW_TOKENS, **sampling)[:, width:].tolist()
    eos = tokenizer.eos_token_id
    return [ids[: ids.index(eos) + 1] if eos in ids else ids for ids in generated]


def measure(model: Any, tokenizer: Any) -> dict[str, Any]:
    """Accuracy per family without calls, greedy and sampled, and how often a free sample holds a command."""
    asked = [q for family in Family for q in questions(family)]
    result: dict[str, Any] = {}
    for mode, is_greedy in (("greedy", True), ("sampled", False)):
        responses = respond(model, tokenizer, asked, is_greedy=is_greedy, can_call=False)
        correct = {
            q: boxed_answer(tokenizer.decode(ids)) == str(q.truth) for q, ids in zip(asked, responses, strict=True)
        }
        result[f"accuracy_{mode}"] = {
            family.label: round(float(np.mean([correct[q] for q in questions(family)])), 4) for family in Family
        }
        result[f"mean_tokens_{mode}"] = round(float(np.mean([len(ids) for ids in responses])), 2)
    texts = tokenizer.batch_decode(respond(model, tokenizer, asked * 2, is_greedy=False))
    result["command_share"] = round(float(np.mean([bool(find_calls(text)) for text in texts])), 4)
    return result


def warmup_examples(model: Any, tokenizer: Any, stage: Warmup, seed: int) -> Batchable:
    """The student's own samples, each several times over with commands at other places."""
    rng = np.random.default_rng(seed)
    asked = [q for family in Family for q in questions(family)] * stage.samples_per_question
    eos, examples = tokenizer.eos_token_id, []
    for question, own in zip(asked, respond(model, tokenizer, asked, is_greedy=False), strict=True):
        prompt = prompt_ids(tokenizer, question)
        if own[-1] != eos:
            continue
        for _ in range(4):
            drawn = int(rng.choice(len(stage.call_probabilities), p=stage.call_probabilities))
            num_calls = min(drawn, len(own))
            called = insert_calls(own, tokenizer, rng, num_calls=num_calls, max_exponent=stage.max_exponent)
            examples.append([(i, IGNORED) for i in prompt] + [(i, i) for i in called])
    return Batchable.pack(examples, tokenizer.pad_token_id)


def new_model(tokenizer: Any, stage: Pretraining) -> Qwen3ForCausalLM:
    config = Qwen3Config(
        vocab_size=len(tokenizer),
        hidden_size=stage.width,
        intermediate_size=3 * stage.width,
        num_hidden_layers=stage.num_layers,
        num_attention_heads=4,
        num_key_value_heads=2,
        head_dim=32,  # vLLM's CPU attention takes 32, 64, 80, 96 and more, not 16 or 24
        max_position_embeddings=1024,
        tie_word_embeddings=True,
        bos_token_id=None,
        eos_token_id=tokenizer.eos_token_id,
        pad_token_id=tokenizer.pad_token_id,
    )
    return Qwen3ForCausalLM(config)


def is_complete(folder: Path, settings: dict[str, Any]) -> bool:
    built = folder / "built.json"
    return built.exists() and json.loads(built.read_text())["settings"] == settings


def build_folder(folder: Path, settings: dict[str, Any], tokenizer: Any, make: Callable[[], Any]) -> Any:
    """Make, save and measure a model unless it is there; the folder appears whole or not at all."""
    settings = json.loads(json.dumps(settings))
    if not is_complete(folder, settings):
        start = perf_counter()
        model = make()
        partial = folder.with_name(folder.name + ".partial")
        shutil.rmtree(partial, ignore_errors=True)
        model.generation_config.eos_token_id = tokenizer.eos_token_id
        model.generation_config.pad_token_id = tokenizer.pad_token_id
        model.to(torch.bfloat16).save_pretrained(partial)
        tokenizer.save_pretrained(partial)
        measured = measure(model.float(), tokenizer) | {
            "num_parameters": model.num_parameters(),
            "seconds": round(perf_counter() - start, 1),
        }
        (partial / "built.json").write_text(json.dumps({"settings": settings, "measured": measured}, indent=2))
        shutil.rmtree(folder, ignore_errors=True)
        partial.rename(folder)
    return AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32)


def build_pretrained(out: Path, name: str, settings: Settings, tokenizer: Any, position: int) -> Any:
    stage: Pretraining = getattr(settings, name)

    def make() -> Any:
        torch.manual_seed(settings.seed)
        model = new_model(tokenizer, stage)
        data = pretraining_examples(tokenizer, stage, 20_000, Random(f"{settings.seed}-{name}"))
        train(model, data, stage, settings.seed, name, position)
        return model

    described = {"seed": settings.seed, "tokenizer": fingerprint(tokenizer), name: asdict(stage)}
    return build_folder(out / name, described, tokenizer, make), described


def build_students(out: Path, settings: Settings) -> None:
    torch.set_num_threads(1)
    tokenizer = AutoTokenizer.from_pretrained(out / "tokenizer.partial")
    student, described = build_pretrained(out, "student", settings, tokenizer, 0)

    def make() -> Any:
        torch.manual_seed(settings.seed)
        data = warmup_examples(student, tokenizer, settings.warmup, settings.seed)
        train(student, data, settings.warmup, settings.seed, "student_warm", 0)
        return student

    build_folder(out / "student_warm", described | {"warmup": asdict(settings.warmup)}, tokenizer, make)


def build_teacher(out: Path, settings: Settings) -> None:
    torch.set_num_threads(1)
    tokenizer = AutoTokenizer.from_pretrained(out / "tokenizer.partial")
    build_pretrained(out, "teacher", settings, tokenizer, 1)


def fingerprint(tokenizer: Any) -> str:
    return hashlib.sha256(tokenizer.backend_tokenizer.to_str().encode()).hexdigest()[:16]


def write_datasets(out: Path, seed: int) -> dict[str, int]:
    split = split_questions(seed)
    datasets = {
        "train": rows([q for q in split["train"] if q.family is not Family.HASH], "train"),
        "train_unfiltered": rows(split["train"], "train"),
        "test": rows(split["test"], "test"),
    }
    for name, records in datasets.items():
        partial = out / f"{name}.parquet.partial"
        pd.DataFrame(records).to_parquet(partial, index=False)
        partial.rename(out / f"{name}.parquet")
    return {name: len(records) for name, records in datasets.items()}


def build(out: Path, settings: Settings, *, should_force: bool = False) -> dict[str, Any]:
    """Build what is missing in `out` and return the manifest."""
    start = perf_counter()
    out.mkdir(parents=True, exist_ok=True)
    names = ("student", "student_warm", "teacher")
    if should_force:
        for name in names:
            shutil.rmtree(out / name, ignore_errors=True)
    tokenizer = build_tokenizer()
    tokenizer.save_pretrained(out / "tokenizer.partial")
    with ProcessPoolExecutor(2, mp_context=multiprocessing.get_context("spawn")) as pool:
        for job in [pool.submit(work, out, settings) for work in (build_students, build_teacher)]:
            job.result()
    shutil.rmtree(out / "tokenizer.partial")
    manifest = {
        "settings": asdict(settings),
        "versions": {name: version(name) for name in ("torch", "transformers", "tokenizers", "numpy")},
        "rows": write_datasets(out, settings.seed),
        "measured": {name: json.loads((out / name / "built.json").read_text())["measured"] for name in names},
        "command_tokens": {n: len(tokenizer.encode(format_call(n), add_special_tokens=False)) for n in (7, 70)},
        "build_seconds": round(perf_counter() - start, 1),
    }
    (out / "manifest.json").write_text(json.dumps(manifest, indent=2) + "\n")
    return manifest


def main() -> None:
    parser = argparse.ArgumentParser(description="Build the tiny world's models and data.")
    parser.add_argument("--out", type=Path, required=True, help="folder to build in")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--steps-scale", type=float, default=1.0, help="scales every training schedule")
    parser.add_argument("--force", action="store_true", help="rebuild what is complete too")
    arguments = parser.parse_args()
    settings = Settings(seed=arguments.seed).scaled(arguments.steps_scale)
    manifest = build(arguments.out, settings, should_force=arguments.force)
    print(json.dumps(manifest["measured"], indent=2))


if __name__ == "__main__":
    main()
