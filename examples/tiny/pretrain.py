"""Build the tiny world's models and questions: a student, a teacher, and datasets in verl's schema.

    python examples/tiny/pretrain.py --out DIR [--seed 0] [--steps-scale 1.0] [--force]

    DIR/student   knows '+'          DIR/questions.parquet   questions of all three families, for training
    DIR/teacher   knows '+' and '*'  DIR/test.parquet        others, held out
    DIR/other     half of it         DIR/manifest.json       settings, versions, measurements; written last

`other` is a smaller teacher of half the schooling, made with --other, for evaluations under another (paper 5.5).

Takes a few minutes on two cores: tiny matrices gain nothing from a second thread, so the student and the teacher train
side by side, one thread each. A second run continues after the last model that a stopped one completed.

A real student reads over a command in its context at once. The tiny one learns to in pre-training, on commands that it
is not taught to write.
"""

import argparse
import hashlib
import json
import os
import shutil
from collections.abc import Callable, Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import asdict, dataclass, replace
from importlib.metadata import version
from multiprocessing import get_context, parent_process
from pathlib import Path
from random import Random
from threading import Thread
from time import perf_counter
from typing import Any

import numpy as np
import pandas as pd
import torch
import world
from torch.nn.functional import cross_entropy
from torch.nn.utils.rnn import pad_sequence
from transformers import AutoTokenizer, Qwen3Config, Qwen3ForCausalLM
from transformers.utils import logging

from relay_verl.data.warmup import insert_calls
from relay_verl.jobs.progress import show_progress
from relay_verl.protocol import find_calls, format_call

IGNORED = -100
TOKENIZER = "tokenizer.partial"
MODELS = ("student", "teacher", "other")


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
    """Shares of '+', '*' and '#'."""
    read_rate: float
    """Share of examples with a number that the model reads and did not write."""
    call_rate: float = 0.0
    """Share of examples with commands that the model reads and does not learn to write."""
    batch_size: int = 48
    num_examples: int = 20_000


@dataclass(frozen=True)
class Settings:
    seed: int = 0
    student: Pretraining = Pretraining("+", 64, 2, 1000, 5e-3, (2, 1, 1), read_rate=0.5, call_rate=0.5)
    teacher: Pretraining = Pretraining("+*", 128, 3, 600, 5e-3, (1, 2, 1), read_rate=0.4)
    other: Pretraining = Pretraining("+*", 64, 2, 300, 5e-3, (1, 2, 1), read_rate=0.4)

    def scaled(self, factor: float) -> "Settings":
        """With shorter pre-training."""

        def scale(stage: Pretraining) -> Pretraining:
            return replace(stage, steps=max(1, round(stage.steps * factor)))

        return replace(self, student=scale(self.student), teacher=scale(self.teacher), other=scale(self.other))


def pretraining_examples(tokenizer: Any, stage: Pretraining, rng: Random) -> list[torch.Tensor]:
    """Examples [length, 2] of (id, label), where the label is the id or IGNORED; tokenized once, part by part."""
    calls_rng = np.random.default_rng(rng.getrandbits(32))
    prompts = {q: [(i, IGNORED) for i in world.prompt_ids(tokenizer, q)] for q in world.all_questions()}
    encoded: dict[str, list[int]] = {}
    examples = []
    for family in rng.choices(list(world.Family), weights=stage.family_weights, k=stage.num_examples):
        question = rng.choice(world.questions(family))
        response = []
        for part in world.draw_example(question, rng, is_known=family.value in stage.known, read_rate=stage.read_rate):
            if part.text not in encoded:
                encoded[part.text] = tokenizer.encode(part.text, add_special_tokens=False)
            response += [(i, i if part.is_learned else IGNORED) for i in encoded[part.text]]
        response.append((tokenizer.eos_token_id, tokenizer.eos_token_id))
        if rng.random() < stage.call_rate:
            places = [~i for i in range(len(response))]  # negative, so that no id of a command looks like one
            called = insert_calls(places, tokenizer, calls_rng, num_calls=rng.randint(1, 3), max_exponent=1)
            response = [response[~i] if i < 0 else (i, IGNORED) for i in called]
        examples.append(torch.tensor(prompts[question] + response))
    return examples


def train(model: Any, examples: list[torch.Tensor], stage: Pretraining, name: str) -> None:
    """Plain supervised training; right padding under causal attention needs no mask."""
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
    model.train()
    for _ in show_progress(range(stage.steps), desc=name, position=MODELS.index(name)):
        chosen = torch.randint(len(examples), (stage.batch_size,)).tolist()
        batch = pad_sequence([examples[i] for i in chosen], batch_first=True, padding_value=IGNORED)
        input_ids, labels = batch[:, :-1, 0].clamp(min=0), batch[:, 1:, 1]  # [batch, length - 1]
        logits = model(input_ids=input_ids, use_cache=False).logits
        loss = cross_entropy(logits.flatten(0, 1), labels.flatten(), ignore_index=IGNORED)
        model.zero_grad()
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        for update in (*optimizers, *schedules):
            update.step()
    model.eval()


@torch.inference_mode()
def respond(
    model: Any, tokenizer: Any, asked: Sequence[world.Question], *, is_greedy: bool, can_call: bool = True
) -> list[list[int]]:
    """The model's response to each question, up to and with its EOS if there is one."""
    prompts = {"input_ids": [world.prompt_ids(tokenizer, q) for q in asked]}
    padded = tokenizer.pad(prompts, padding_side="left", return_tensors="pt")
    options: dict[str, Any] = {"do_sample": False} if is_greedy else {"do_sample": True, "temperature": 1.0, "top_k": 0}
    if not can_call:
        options["bad_words_ids"] = [tokenizer.encode("<call", add_special_tokens=False)]
    width = padded["input_ids"].shape[1]
    generated = model.generate(**padded, max_new_tokens=64, **options)[:, width:].tolist()
    eos = tokenizer.eos_token_id
    return [ids[: ids.index(eos) + 1] if eos in ids else ids for ids in generated]


def measure(model: Any, tokenizer: Any) -> dict[str, Any]:
    """Accuracy without calls and tokens a response, greedy and sampled; and the commands in free samples: the share of
    responses that hold one, and the share of attempts that are well-formed."""
    asked = world.all_questions() * 2
    result: dict[str, Any] = {"num_parameters": model.num_parameters()}
    for mode in ("greedy", "sampled"):
        responses = respond(model, tokenizer, asked, is_greedy=mode == "greedy", can_call=False)
        answers = [world.boxed_answer(text) for text in tokenizer.batch_decode(responses)]
        right: dict[str, list[bool]] = {family.label: [] for family in world.Family}
        for question, answer in zip(asked, answers, strict=True):
            right[question.family.label].append(answer == str(question.truth))
        result[f"accuracy_{mode}"] = {label: round(float(np.mean(each)), 4) for label, each in right.items()}
        result[f"mean_tokens_{mode}"] = round(float(np.mean([len(ids) for ids in responses])), 2)
    free = tokenizer.batch_decode(respond(model, tokenizer, asked, is_greedy=False))
    result["command_share"] = round(float(np.mean([bool(find_calls(text)) for text in free])), 4)
    attempts = sum(text.count("<call") for text in free)
    commands = sum(len(find_calls(text)) for text in free)
    result["well_formed_share"] = round(commands / attempts, 4) if attempts else None
    return result


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


def build_model(out: Path, settings: Settings, name: str) -> None:
    """One process's work: the student or the teacher, pre-trained, saved and measured unless it is there; the folder
    appears whole or not at all."""
    torch.set_num_threads(1)
    logging.disable_progress_bar()
    tokenizer = AutoTokenizer.from_pretrained(out / TOKENIZER)
    stage: Pretraining = getattr(settings, name)
    digest = hashlib.sha256(tokenizer.backend_tokenizer.to_str().encode()).hexdigest()
    described = json.loads(json.dumps({"seed": settings.seed, "tokenizer": digest, "pretraining": asdict(stage)}))
    folder = out / name
    built = folder / "built.json"
    if built.exists() and json.loads(built.read_text())["settings"] == described:
        return
    start = perf_counter()
    torch.manual_seed(settings.seed)
    model = new_model(tokenizer, stage)
    train(model, pretraining_examples(tokenizer, stage, Random(f"{settings.seed}-{name}")), stage, name)
    partial = folder.with_name(f"{folder.name}.partial")
    shutil.rmtree(partial, ignore_errors=True)
    model.generation_config.update(eos_token_id=tokenizer.eos_token_id, pad_token_id=tokenizer.pad_token_id)
    model.to(torch.bfloat16).save_pretrained(partial)
    tokenizer.save_pretrained(partial)
    measured = measure(model.float(), tokenizer) | {"seconds": round(perf_counter() - start, 1)}
    (partial / built.name).write_text(json.dumps({"settings": described, "measured": measured}, indent=2) + "\n")
    shutil.rmtree(folder, ignore_errors=True)
    partial.rename(folder)


def end_with_parent() -> None:
    """A build that is killed takes its processes along, so that none writes into the next build's folder."""
    parent = parent_process()
    assert parent is not None

    def wait() -> None:
        parent.join()
        os._exit(1)

    Thread(target=wait, daemon=True).start()


def write_whole(path: Path, write: Callable[[Path], Any]) -> None:
    partial = path.with_name(f"{path.name}.partial")
    write(partial)
    partial.rename(path)


def build(
    out: Path, settings: Settings, *, models: Sequence[str] = MODELS[:2], should_force: bool = False
) -> dict[str, Any]:
    """Build what is missing of these models and the data in `out`; return the manifest."""
    start = perf_counter()
    out.mkdir(parents=True, exist_ok=True)
    (out / "manifest.json").unlink(missing_ok=True)
    for name in models if should_force else ():
        shutil.rmtree(out / name, ignore_errors=True)
    tokenizer = world.build_tokenizer()
    tokenizer.save_pretrained(out / TOKENIZER)
    with ProcessPoolExecutor(2, mp_context=get_context("spawn"), initializer=end_with_parent) as pool:
        for job in [pool.submit(build_model, out, settings, name) for name in models]:
            job.result()
    shutil.rmtree(out / TOKENIZER)
    datasets = world.datasets(settings.seed)
    for name, rows in datasets.items():
        write_whole(out / f"{name}.parquet", pd.DataFrame(rows).to_parquet)
    manifest = {
        "settings": asdict(settings),
        "versions": {name: version(name) for name in ("torch", "transformers", "tokenizers", "numpy")},
        "rows": {name: len(rows) for name, rows in datasets.items()},
        "measured": {name: json.loads((out / name / "built.json").read_text())["measured"] for name in models},
        "command_tokens": {n: len(tokenizer.encode(format_call(n), add_special_tokens=False)) for n in (7, 70)},
        "build_seconds": round(perf_counter() - start, 1),
    }
    write_whole(out / "manifest.json", lambda path: path.write_text(json.dumps(manifest, indent=2) + "\n"))
    return manifest


def main() -> None:
    parser = argparse.ArgumentParser(description="Build the tiny world's models and data.")
    parser.add_argument("--out", type=Path, required=True, help="folder to build in")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--steps-scale", type=float, default=1.0, help="scales the pre-training of both models")
    parser.add_argument("--other", action="store_true", help="build the other teacher too")
    parser.add_argument("--force", action="store_true", help="rebuild what is complete too")
    arguments = parser.parse_args()
    settings = Settings(seed=arguments.seed).scaled(arguments.steps_scale)
    models = MODELS if arguments.other else MODELS[:2]
    manifest = build(arguments.out, settings, models=models, should_force=arguments.force)
    for name, measured in manifest["measured"].items():
        accuracy = ", ".join(f"{label} {share:.0%}" for label, share in measured["accuracy_greedy"].items())
        print(f"{name}: {measured['num_parameters']:,} parameters; accuracy alone: {accuracy}")


if __name__ == "__main__":
    main()
