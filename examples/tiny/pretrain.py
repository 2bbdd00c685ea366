"""Build a tiny world's models and questions: a student, a teacher, and datasets in verl's schema.

    python examples/tiny/pretrain.py --out DIR [--world plain] [--seed 0] [--steps-scale 1.0] [--measure] [--force]

    DIR/student   knows '+'          DIR/questions.parquet   questions of all three families, for training
    DIR/teacher   knows '+' and '*'  DIR/test.parquet        others, held out
    DIR/other     half of it         DIR/manifest.json       settings, versions, measurements; written last

That is the plain world; in the graded one the student knows the easy grades and the teacher most (graded_world.py). A
folder holds one world. `other` is a smaller teacher of half the schooling, made with --other, for evaluations under
another (paper 5.5).

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
import sys
from collections.abc import Callable, Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import asdict, replace
from functools import cache
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
from measuring import accuracy_table, help_table, measure_pair, named_shares
from schooling import WORLDS, Pretraining, Settings
from torch.nn.functional import cross_entropy
from torch.nn.utils.rnn import pad_sequence
from transformers import AutoTokenizer, Qwen3Config, Qwen3ForCausalLM
from transformers.utils import logging
from world import Question, prompt_ids

from relay_verl.data.warmup import insert_calls
from relay_verl.errors import UserError
from relay_verl.jobs.progress import show_progress
from relay_verl.protocol import format_call

IGNORED = -100
TOKENIZER = "tokenizer.partial"
BUILT = "built.json"
MODELS = ("student", "teacher", "other")


def pretraining_examples(tokenizer: Any, stage: Pretraining, rng: Random) -> list[torch.Tensor]:
    """Examples [length, 2] of (id, label), where the label is the id or IGNORED; tokenized once, part by part."""
    calls_rng = np.random.default_rng(rng.getrandbits(32))

    @cache
    def encode(text: str) -> list[int]:
        return list(tokenizer.encode(text, add_special_tokens=False))

    @cache
    def encode_prompt(question: Question) -> list[tuple[int, int]]:
        return [(i, IGNORED) for i in prompt_ids(tokenizer, question)]

    examples = []
    for lesson in stage.lessons(rng):
        response = [(i, i if part.is_learned else IGNORED) for part in lesson.parts for i in encode(part.text)]
        if lesson.is_whole:
            response.append((tokenizer.eos_token_id, tokenizer.eos_token_id))
        if rng.random() < stage.call_rate:
            places = [~i for i in range(len(response))]  # negative, so that no id of a command looks like one
            called = insert_calls(places, tokenizer, calls_rng, num_calls=rng.randint(1, 3), max_exponent=1)
            response = [response[~i] if i < 0 else (i, IGNORED) for i in called]
        examples.append(torch.tensor(encode_prompt(lesson.question) + response))
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
    batches = stage.batches(examples)
    for _ in show_progress(range(stage.steps), desc=name, position=MODELS.index(name)):
        batch = pad_sequence(next(batches), batch_first=True, padding_value=IGNORED)
        input_ids, labels = batch[:, :-1, 0].clamp(min=0), batch[:, 1:, 1]  # [batch, length - 1]
        logits = model(input_ids=input_ids, use_cache=False).logits
        loss = cross_entropy(logits.flatten(0, 1), labels.flatten(), ignore_index=IGNORED)
        model.zero_grad()
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        for update in (*optimizers, *schedules):
            update.step()
    model.eval()


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


def read_built(path: Path) -> dict[str, Any]:
    """What a model says of how it was built; one that names no world is of the plain one."""
    built = json.loads(path.read_text())
    return built | {"settings": {"world": "plain"} | built["settings"]}


def check_world(out: Path, world: str) -> None:
    """A folder holds one world.

    Raises:
        UserError: it holds a model of another one.
    """
    for name in MODELS:
        path = out / name / BUILT
        held = read_built(path)["settings"]["world"] if path.exists() else world
        if held != world:
            raise UserError(f"--world {world}: {out} holds the {held} world: give another folder, or --world {held}")


def load_tokenizer(folder: Path) -> Any:
    """A tokenizer that is saved as the same files with HF_HUB_OFFLINE as without."""
    tokenizer = AutoTokenizer.from_pretrained(folder)
    tokenizer.init_kwargs.pop("local_files_only", None)  # says whether it is set, and would be saved
    return tokenizer


def build_model(out: Path, world: str, settings: Settings, name: str) -> None:
    """One process's work: the student or the teacher, pre-trained, saved and measured unless it is there; the folder
    appears whole or not at all."""
    torch.set_num_threads(1)
    logging.disable_progress_bar()
    tokenizer = load_tokenizer(out / TOKENIZER)
    stage: Pretraining = getattr(settings, name)
    digest = hashlib.sha256(tokenizer.backend_tokenizer.to_str().encode()).hexdigest()
    facts = {"world": world, "seed": settings.seed, "tokenizer": digest, "pretraining": asdict(stage)}
    described = json.loads(json.dumps(facts))
    folder = out / name
    built = folder / BUILT
    if built.exists() and read_built(built)["settings"] == described:
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
    measured = stage.measure(model.float(), tokenizer) | {"seconds": round(perf_counter() - start, 1)}
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
    out: Path,
    settings: Settings,
    world: str = "plain",
    *,
    models: Sequence[str] = MODELS[:2],
    should_force: bool = False,
    should_measure_help: bool = False,
) -> dict[str, Any]:
    """Build what is missing of these models and the data in `out`; return the manifest.

    Raises:
        UserError: `out` holds another world.
    """
    check_world(out, world)
    start = perf_counter()
    out.mkdir(parents=True, exist_ok=True)
    (out / "manifest.json").unlink(missing_ok=True)
    for name in models if should_force else ():
        shutil.rmtree(out / name, ignore_errors=True)
    task = WORLDS[world].task
    tokenizer = task.build_tokenizer()
    tokenizer.save_pretrained(out / TOKENIZER)
    with ProcessPoolExecutor(2, mp_context=get_context("spawn"), initializer=end_with_parent) as pool:
        for job in [pool.submit(build_model, out, world, settings, name) for name in models]:
            job.result()
    shutil.rmtree(out / TOKENIZER)
    datasets = task.datasets(settings.seed)
    for name, rows in datasets.items():
        write_whole(out / f"{name}.parquet", pd.DataFrame(rows).to_parquet)
    manifest: dict[str, Any] = {
        "world": world,
        "settings": asdict(settings),
        "versions": {name: version(name) for name in ("torch", "transformers", "tokenizers", "numpy")},
        "rows": {name: len(rows) for name, rows in datasets.items()},
        "measured": {name: read_built(out / name / BUILT)["measured"] for name in models},
        "command_tokens": {n: len(tokenizer.encode(format_call(n), add_special_tokens=False)) for n in (7, 70)},
        "build_seconds": round(perf_counter() - start, 1),
    }
    if should_measure_help:
        manifest["help"] = measure_pair(out / "student", out / "teacher")
    write_whole(out / "manifest.json", lambda path: path.write_text(json.dumps(manifest, indent=2) + "\n"))
    return manifest


def main() -> None:
    parser = argparse.ArgumentParser(description="Build a tiny world's models and data.")
    parser.add_argument("--out", type=Path, required=True, help="folder to build in")
    parser.add_argument("--world", choices=WORLDS, default="plain", help="the task; plain by default")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--steps-scale", type=float, default=1.0, help="scales the pre-training of both models")
    parser.add_argument("--other", action="store_true", help="build the other teacher too")
    parser.add_argument("--measure", action="store_true", help="print tables of what the models can do")
    parser.add_argument("--force", action="store_true", help="rebuild what is complete too")
    arguments = parser.parse_args()
    manifest = build(
        arguments.out,
        replace(WORLDS[arguments.world].settings, seed=arguments.seed).scaled(arguments.steps_scale),
        arguments.world,
        models=MODELS if arguments.other else MODELS[:2],
        should_force=arguments.force,
        should_measure_help=arguments.measure and arguments.world == "graded",
    )
    for name, measured in manifest["measured"].items():
        shares = named_shares(measured["accuracy_greedy"]).items()
        accuracy = ", ".join(f"{label} {share:.0%}" for label, share in shares)
        print(f"{name}: {measured['num_parameters']:,} parameters; accuracy alone: {accuracy}")
    if arguments.measure:
        print(f"\n{accuracy_table(manifest)}")
        if "help" in manifest:
            print(f"\n{help_table(manifest)}")


if __name__ == "__main__":
    try:
        main()
    except UserError as error:
        sys.exit(f"pretrain: {error}")
