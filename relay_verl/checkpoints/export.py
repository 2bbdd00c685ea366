"""A checkpoint as a Hugging Face folder: verl's merger, `relay.json`, and a model card that says where it comes from.

Invariants: the folder appears whole or not at all; its weights are those that the rollout engine sampled with in
training (the 32-bit weights in the engine's type). No pickle is run: torch reads tensors alone.

Of a student under LoRA the adapter is merged into its base, or kept as a PEFT adapter folder.
"""

from __future__ import annotations

import shutil
import sys
from collections.abc import Sequence
from contextlib import redirect_stdout
from pathlib import Path
from typing import Any

from relay_verl.checkpoints.adapter import Base
from relay_verl.checkpoints.card import CARD_FILE, card
from relay_verl.checkpoints.card_results import Results
from relay_verl.checkpoints.integrity import find_damage, step_of
from relay_verl.checkpoints.record import CHECKPOINT_FILE, CheckpointRecord, read_checkpoint, read_run
from relay_verl.checkpoints.relay_file import RELAY_FILE, RelayFile, find_relay_file, write_relay_file
from relay_verl.checkpoints.resume import choose_checkpoint
from relay_verl.checkpoints.scale import META_FILE, read_scale
from relay_verl.checkpoints.trained_relay import relay_of
from relay_verl.checkpoints.trained_student import STUDENT, TrainedStudent, read_step
from relay_verl.errors import UserError
from relay_verl.files import replace_file
from relay_verl.jobs.byproducts import by_product
from relay_verl.models.address import model_identity

NOT_THIS = "{out} is there already and is not this export; give another folder or remove it"


def export(
    checkpoint: Path,
    out: Path,
    *,
    dtype: str = "auto",
    metrics: Path | None = None,
    keep_adapter: bool = False,
    results: Sequence[Path] = (),
    name: str | None = None,
    license: str | None = None,
) -> Path:
    """Write the student in `checkpoint` to the Hugging Face folder `out`; gives the `global_step_N` folder it is from.

    `checkpoint` is a `global_step_N` folder, its `actor` folder, or a run's folder: there the one that the run would
    resume at. `metrics` is verl's metrics file (logger `file`); of it the card has the checkpoint's step. `results` are
    results folders of `relay-verl eval` for the card. `out` may be there if it is this export already.

    `name` is what the card calls the model, such as its id on the hub; the folder's name if None. `license` is the
    hub's name of its licence, the base model's if None.

    `dtype` is 'auto', the rollout engine's, or torch's name of a type. `keep_adapter` writes the LoRA adapter alone.

    Raises:
        UserError: no whole checkpoint there, one that verl's FSDP merger does not read, another `out`, no room, or no
            adapter to keep.
    """
    out = out.expanduser().absolute()
    if out.exists() and not (out / ("adapter_config.json" if keep_adapter else "config.json")).is_file():
        raise UserError(NOT_THIS.format(out=out))
    step_folder = find_checkpoint(checkpoint)
    record = read_checkpoint(step_folder)
    # The record is written after the checkpoint: one that was killed in between is described by its run alone.
    if record is None:
        run = read_run(step_folder.parent)
        step = step_of(step_folder)
        record = CheckpointRecord(run, step, {}) if run and step is not None else None
    chosen_dtype = _dtype_of(record) if dtype == "auto" else dtype
    # a wrong --metrics or --results is said before minutes of merging; what else keeps a card from being written costs
    # the card alone
    if metrics and record:
        read_step(metrics, record.step)
    Results.read(results)
    # A merge that was killed may have left the folder; it has our name, so nothing of the user is lost.
    temporary = out.with_name(f".{out.name}.tmp")
    shutil.rmtree(temporary, ignore_errors=True)
    try:
        _merge(step_folder / "actor", temporary, chosen_dtype, _base_of(record), keep_adapter)
        relay = None
        with by_product(f"{RELAY_FILE} of {out}"):
            relay = relay_of(record, temporary)
        if relay is not None:
            write_relay_file(temporary, relay)
        with by_product(f"the model card of {out}"):
            student = TrainedStudent(
                record,
                name or out.name,
                chosen_dtype,
                relay or RelayFile(),
                metrics,
                lora=read_scale(step_folder / "actor"),
                is_adapter=keep_adapter,
                results=results,
                license=license,
            )
            replace_file(temporary / CARD_FILE, card(student).encode())
        # The same export again, such as with new results: the weights stay and only what is said of them is renewed.
        if out.exists():
            _check_same(out, temporary)
            for file in (RELAY_FILE, CARD_FILE):
                if (temporary / file).is_file():
                    shutil.copy2(temporary / file, out / file)
        else:
            temporary.rename(out)
    except OSError as error:
        raise UserError(f"{out} could not be written: {error.strerror or error}") from None
    finally:
        shutil.rmtree(temporary, ignore_errors=True)
    return step_folder


def keep_facts(step_folder: Path, out: Path) -> None:
    """Copy what a card is written from, the record and LoRA's scale, without the weights.

    Args:
        step_folder: a checkpoint.
        out: the folder to write, for `renew_card`.
    """
    for name in (Path(CHECKPOINT_FILE), Path("actor", META_FILE)):
        if (step_folder / name).is_file():
            (out / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy2(step_folder / name, out / name)


def renew_card(facts: Path, model: Path, metrics: Path | None, results: Sequence[Path]) -> None:
    """Write the card of a whole exported model again, now with results.

    Args:
        facts: the checkpoint it is from, or what `keep_facts` kept of it. Without a record the card stays as it is.
        model: the exported folder.
        metrics: verl's metrics file, as for `export`.
        results: results folders of `relay-verl eval` on the model.

    Raises:
        UserError: a file cannot be read.
    """
    record = read_checkpoint(facts)
    if record is None:
        return
    lora, relay = read_scale(facts / "actor"), find_relay_file(model) or RelayFile()
    student = TrainedStudent(record, model.name, _dtype_of(record), relay, metrics, lora, results=results)
    replace_file(model / CARD_FILE, card(student).encode())


def find_checkpoint(path: Path) -> Path:
    """The whole `global_step_N` folder that `path` means. Raises UserError if there is none."""
    path = path.expanduser().absolute()
    if not path.is_dir():
        raise UserError(f"{path} does not exist; give a global_step_N folder or a run's folder")
    if path.name == "actor":
        path = path.parent
    if step_of(path) is None:
        choice, reason = choose_checkpoint(path, deep=True)
        if choice is None:
            raise UserError(f"{path} has no whole checkpoint")
        if reason:
            print(reason, file=sys.stderr)
        return choice
    damage = find_damage(path, deep=True)
    if damage:
        raise UserError(damage)
    return path


def _dtype_of(record: CheckpointRecord | None) -> str:
    """The engine's type of the training; verl's default without a record."""
    name = record.run.config.get("actor_rollout_ref.rollout.dtype") if record else None
    return "float32" if name == "float32" else "bfloat16"


def _base_of(record: CheckpointRecord | None) -> Base:
    """The model that the training began with."""
    address = record.run.config.get(STUDENT) if record else None
    return Base(address, record.run.models.get(STUDENT) if record else None)


def _check_same(out: Path, made: Path) -> None:
    if model_identity(str(out)) != model_identity(str(made)):
        raise UserError(NOT_THIS.format(out=out))


def _merge(actor: Path, out: Path, dtype: str, base: Base, keep_adapter: bool) -> None:
    from verl.model_merger.base_model_merger import ModelMergerConfig

    from relay_verl.checkpoints.merger import DtypeMerger

    if not (actor / "fsdp_config.json").is_file():
        raise UserError(f"{actor} has no fsdp_config.json: only checkpoints of verl's FSDP strategies are exported")
    config: Any = ModelMergerConfig(
        operation="merge",
        backend="fsdp",
        local_dir=str(actor),
        hf_model_config_path=str(actor / "huggingface"),
        target_dir=str(out),
    )
    with redirect_stdout(sys.stderr):  # what it prints on the way
        DtypeMerger(config, dtype, base, keep_adapter=keep_adapter).merge_and_save()
