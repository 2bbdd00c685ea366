"""Make the folder of a shipped pair: copy two students and their teacher, ask them every question that was held out,
and write the card.

Invariants: the folder appears whole or not at all; the same models on the same machine give the same bytes; no file
names a folder of this machine.
"""

from __future__ import annotations

import shutil
from collections.abc import Mapping, Sequence
from contextlib import redirect_stdout
from dataclasses import dataclass, field, replace
from pathlib import Path
from sys import stderr
from typing import Any

from jinja2 import Environment, StrictUndefined

from relay_verl.checkpoints.card_words import command_of
from relay_verl.checkpoints.record import CheckpointRecord, read_checkpoint
from relay_verl.checkpoints.relay_file import find_relay_file, write_relay_file
from relay_verl.data.parquet import iter_parquet
from relay_verl.data.prompts import strip_wrapper, wrap
from relay_verl.data.truths import truth_of, truth_text
from relay_verl.demo.demo_question import DemoQuestion, write_questions
from relay_verl.demo.demo_relay import CONDITIONS, open_relay
from relay_verl.demo.pair_card import CARD_FILE, PairCard, PairTraining, StoredFile, write_card
from relay_verl.demo.shipped_pair import MODELS, QUESTIONS_FILE, STUDENT, STUDENT_WARM, ShippedPair, read_pair
from relay_verl.errors import UserError, as_user_error
from relay_verl.files import replace_file, sha256_of, writing
from relay_verl.jobs.progress import show_progress
from relay_verl.messages import content_text
from relay_verl.models.address import check_model, count_parameters
from relay_verl.models.tokenizers import read_tokenizer
from relay_verl.report.summary_table import ConditionSummary, summaries_to_markdown, summarize
from relay_verl.traces.records import ResponseRecord
from relay_verl.versions import versions

README_FILE = "README.md"
TEMPLATE = "pair_readme.md"


@dataclass(frozen=True)
class PairSources:
    """What a pair is packed from."""

    models: Mapping[str, Path]
    """A folder for each of `shipped_pair.MODELS`; the trained student's has the relay.json of its export."""
    questions: Sequence[DemoQuestion]
    """The world's questions."""
    title: str
    """What the pair is of."""
    facts: Path | None = None
    """The training's checkpoint, or what `relay_verl.checkpoints.export.keep_facts` kept of it."""
    pretraining: Mapping[str, Any] = field(default_factory=dict)
    """Settings by which the models were made before."""
    names: Mapping[str, str] = field(default_factory=dict)
    """What tables call a kind of questions."""
    notes: Mapping[str, str] = field(default_factory=dict)
    """What such a kind asks."""


def questions_of(file: Path, *, is_held_out: bool) -> list[DemoQuestion]:
    """The questions of a dataset in verl's schema.

    Raises:
        UserError: the file cannot be read, or a prompt is not a question and the paper's instruction (C.1).
    """
    questions = []
    for row in iter_parquet(file, ["data_source", "prompt", "reward_model", "extra_info"]):
        prompt = content_text(row["prompt"][-1]["content"]) or ""
        text = strip_wrapper(prompt)
        if len(row["prompt"]) != 1 or wrap(text) != prompt:
            raise UserError(f"{file}: expected prompts of a question and the paper's instruction, got {prompt!r:.80}")
        answer = truth_text(truth_of(row["reward_model"]))
        questions.append(DemoQuestion(str(row["extra_info"]["id"]), str(row["data_source"]), text, answer, is_held_out))
    return questions


def pack(sources: PairSources, out: Path) -> ShippedPair:
    """Write the folder; takes the place of a pair that is there.

    Args:
        sources: of the pair.
        out: the folder.

    Raises:
        UserError: a model is not there, the student has no relay.json, `out` is another folder, or cannot be written.
    """
    out = out.expanduser().absolute()
    if out.exists() and not (out / CARD_FILE).is_file():
        raise UserError(f"{out} is there already and has no {CARD_FILE}; give another folder or remove it")
    for role in MODELS:
        check_model(role, str(sources.models[role]))
    temporary = out.with_name(f".{out.name}.tmp")
    shutil.rmtree(temporary, ignore_errors=True)
    try:
        with writing():
            for role in MODELS:
                _copy_model(sources.models[role], temporary / role)
            _write_relay_files(sources.models[STUDENT], temporary)
            replace_file(temporary / QUESTIONS_FILE, write_questions(sources.questions).encode())
            results = summarize(measure(temporary, sources.questions))
            card = _card_of(sources, temporary, tuple(results))
            replace_file(temporary / README_FILE, write_readme(card).encode())
            readme = _stored(temporary / README_FILE)
            write_card(temporary, replace(card, files={README_FILE: readme, **card.files}))
            shutil.rmtree(out, ignore_errors=True)
            temporary.rename(out)
    finally:
        shutil.rmtree(temporary, ignore_errors=True)
    return read_pair(out)


def measure(folder: Path, questions: Sequence[DemoQuestion]) -> list[ResponseRecord]:
    """What the pair in a folder answers to every question that was held out, condition by condition."""
    asked = [(question, condition) for condition in CONDITIONS for question in questions if question.is_held_out]
    with open_relay(folder) as relay:
        return [relay.ask(*each) for each in show_progress(asked, desc="asking the pair")]


def _copy_model(source: Path, target: Path) -> None:
    """The model in bfloat16 and its tokenizer, without what names a folder of this machine."""
    import torch
    from transformers import AutoModelForCausalLM
    from transformers.utils import logging as bars

    bars.disable_progress_bar()
    with redirect_stdout(stderr):
        with as_user_error((OSError, ValueError), str(source)):
            model = AutoModelForCausalLM.from_pretrained(source, dtype=torch.bfloat16, use_safetensors=True)
        model.save_pretrained(target)
        read_tokenizer(source.name, str(source)).save_pretrained(target)
    for file in target.iterdir():
        file.chmod(0o644)


def _write_relay_files(student: Path, folder: Path) -> None:
    """The trained student's relay.json for both students: what is compared is the training alone."""
    relay = find_relay_file(student)
    if relay is None:
        raise UserError(f"{student}: expected a student that `relay-verl export` wrote, with relay.json in it")
    for role in (STUDENT, STUDENT_WARM):
        write_relay_file(folder / role, relay)


def _card_of(sources: PairSources, folder: Path, results: tuple[ConditionSummary, ...]) -> PairCard:
    names = sorted(file.relative_to(folder).as_posix() for file in folder.rglob("*") if file.is_file())
    record = None if sources.facts is None else read_checkpoint(sources.facts)
    return PairCard(
        title=sources.title,
        files={name: _stored(folder / name) for name in names},
        num_parameters={role: count_parameters(str(folder / role)) or 0 for role in MODELS},
        names=dict(sources.names),
        notes=dict(sources.notes),
        training=_training_of(record, sources.pretraining),
        results=results,
        versions=versions(),
    )


def _training_of(record: CheckpointRecord | None, pretraining: Mapping[str, Any]) -> PairTraining:
    if record is None:
        return PairTraining(None, None, "", pretraining)
    return PairTraining(
        record.run.recipe, record.step, command_of(record.run.overrides), pretraining, record.run.versions
    )


def _stored(file: Path) -> StoredFile:
    return StoredFile(sha256_of(file), file.stat().st_size)


def write_readme(card: PairCard) -> str:
    """The card to read."""
    environment = Environment(
        undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True, keep_trailing_newline=True
    )
    template = environment.from_string(Path(__file__).with_name(TEMPLATE).read_text(encoding="utf-8"))
    return template.render(
        card=card,
        results=summaries_to_markdown(card.results, card.names),
        versions=", ".join(f"{name} {number}" for name, number in card.versions.items()),
    )
