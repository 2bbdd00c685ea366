"""`relay-verl defer-train`: a label file in, a head's folder out, with `training.json` and a picture in it.

Departure: both objectives train the head alone. Co-LLM trains the student with it; here the student stays as it is, so
that one student serves every method that is compared.
"""

from __future__ import annotations

import json
import shutil
import sys
from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any

from relay_verl.config import DeferTrainingSettings
from relay_verl.defer.head_folder import save_head
from relay_verl.defer.head_info import HeadInfo, HeadKind
from relay_verl.defer_training.label_plan import student_of
from relay_verl.defer_training.label_run import read_labels
from relay_verl.defer_training.learning_curve import draw_learning_curve
from relay_verl.defer_training.score_levels import quantiles
from relay_verl.errors import UserError
from relay_verl.files import LockedError, lock, reading, replace_file, sha256_of, writing
from relay_verl.jobs.byproducts import by_product
from relay_verl.models.address import check_model, is_elsewhere, model_sha256
from relay_verl.models.pretrained import trusts
from relay_verl.run_config import RunConfig
from relay_verl.versions import versions

TRAINING_FILE = "training.json"
"""In a head's folder: how it was trained."""
PICTURE = "training.png"


def train_head(run: RunConfig, labels: Path, out: Path, *, device: str | None = None) -> dict[str, Any]:
    """Train the head that the recipe names on a label file; gives what `training.json` says.

    Args:
        run: a composed recipe; `relay.defer_training` says how, and its student is whose hidden states are read.
        labels: a parquet file of `relay-verl defer-data`.
        out: the head's folder.
        device: as torch names it; None takes a GPU where there is one.

    Raises:
        UserError: the recipe names no head or no student, or the file is not usable.
        JobError: the folder belongs to another training.
    """
    settings, student = run.relay.defer_training, student_of(run)
    if settings.kind is None:
        raise UserError("relay.defer_training.kind: null: expected the head to train, citer or collm")
    if is_elsewhere(student):
        raise UserError(f"actor_rollout_ref.model.path: {student}: a head is trained on the hidden states of a folder")
    check_model("actor_rollout_ref.model.path", student)
    with reading(labels):
        spec = {
            "labels_sha256": sha256_of(labels),
            "student_sha256": model_sha256(student),
            "student": student,
            "settings": _describe(settings),
        }
    finished = read_training(out)
    if finished is not None:
        if finished["training"] != spec:
            raise UserError(f"{out}: holds a head of another training; give another --out, or remove it")
        print(f"{out} is there already", file=sys.stderr)
        return finished
    work = out.with_name(f"{out.name}.work")
    with writing():
        work.mkdir(parents=True, exist_ok=True)
        try:
            held = lock(work / "lock")
        except LockedError as holder:
            raise UserError(f"{out}: another process is writing it: {holder}") from None
    with held:
        facts = _train(run, settings, student, labels, spec, out, work, device)
    shutil.rmtree(work, ignore_errors=True)
    return facts


def _train(
    run: RunConfig,
    settings: DeferTrainingSettings,
    student: str,
    labels: Path,
    spec: dict[str, Any],
    out: Path,
    work: Path,
    device: str | None,
) -> dict[str, Any]:
    """The training itself, in the folder `work`."""
    import torch

    from relay_verl.defer_training.head_trainer import HeadTrainer
    from relay_verl.defer_training.hidden_states import compute_hidden_states
    from relay_verl.defer_training.objectives import OBJECTIVES
    from relay_verl.defer_training.training_tokens import make_tokens

    assert settings.kind is not None
    kind = HeadKind(settings.kind)
    device = device or ("cuda" if torch.cuda.is_available() else "cpu")
    queries = read_labels(labels)
    inputs = {name: value for name, value in spec.items() if name != "settings"}
    is_trusted = trusts(run.prompts)
    hidden = compute_hidden_states(queries, student, work / "hidden", inputs, trusts=is_trusted, device=device)
    objective = OBJECTIVES[kind]
    tokens = make_tokens(queries, hidden, needs_logprobs=objective.needs_logprobs, path=labels)
    info = HeadInfo(
        kind,
        hidden.shape[1],
        student=student,
        student_sha256=spec["student_sha256"],
        versions=versions(),
    )
    state_file = work / f"state-{_digest(spec)}.pt"
    trained = HeadTrainer(info, objective, tokens, settings, state_file, device).train()
    facts = {
        "training": spec,
        "kind": str(kind),
        "learning_rate": settings.learning_rate or objective.learning_rate,
        "iteration": max(query.iteration for query in queries),
        "num_queries": len(queries),
        "num_tokens": len(tokens),
        "num_train_tokens": trained.num_train,
        "student_share": float(tokens.labels.mean()),
        "best_epoch": trained.best,
        "epochs": [asdict(epoch) for epoch in trained.epochs],
        "held_out_quantiles": quantiles(trained.held_out_scores.tolist()),
    }
    save_head(out, trained.head, info)
    with by_product(f"the picture {out / PICTURE}"):
        draw_learning_curve(trained.epochs, trained.best, out / PICTURE, f"Training of the {kind} head {out.name}")
    with writing():
        replace_file(out / TRAINING_FILE, f"{json.dumps(facts, indent=2)}\n".encode())
    return facts


def read_training(folder: Path) -> dict[str, Any] | None:
    """What `training.json` of a head's folder says; None if it has none.

    Raises:
        UserError: it is damaged.
    """
    file = folder / TRAINING_FILE
    if not file.is_file():
        return None
    with reading(file):
        text = file.read_text(encoding="utf-8")
    try:
        facts = json.loads(text)
        assert isinstance(facts["held_out_quantiles"], list) and "training" in facts
    except (ValueError, KeyError, TypeError, AssertionError):
        raise UserError(f"{file} is damaged; remove {folder} to train anew") from None
    return dict(facts)


def _describe(settings: DeferTrainingSettings) -> dict[str, Any]:
    """What of the settings decides a training."""
    names = (
        "kind",
        "learning_rate",
        "batch_size",
        "max_epochs",
        "patience",
        "held_out_share",
        "split",
        "trains_on_rollouts",
    )
    return {name: getattr(settings, name) for name in (*names, "num_weak_epochs", "seed")}


def _digest(spec: Mapping[str, Any]) -> str:
    """Names the state of one training among those that share a folder."""
    import hashlib

    return hashlib.sha256(json.dumps(spec, sort_keys=True).encode()).hexdigest()[:16]
