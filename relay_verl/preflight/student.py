"""Whether the student is the one that a recipe is about: given, of its size, and warmed up.

GRPO on a student that never writes a command runs without an error and trains nothing that the paper is about.
"""

from __future__ import annotations

from pathlib import Path

from relay_verl.errors import UserError
from relay_verl.models.address import is_local
from relay_verl.preflight.check import CheckWarning
from relay_verl.recipes.recipe import find_recipe, is_warm_up, recipe_names
from relay_verl.recipes.shapes import Shape, shape_of
from relay_verl.run_config import RunConfig
from relay_verl.trainer.warmup_record import WARMUP_FILE, says_warmed_up

KEY = "actor_rollout_ref.model.path"
BASE_KEY = "relay.warmup.base_model"
_COMPARED = {
    "num_hidden_layers": "num_layers",
    "hidden_size": "hidden",
    "intermediate_size": "intermediate",
    "num_attention_heads": "num_heads",
    "num_key_value_heads": "num_kv_heads",
}
"""Names in a config.json by the field of `Shape`; the vocabulary may be padded, so it is not compared."""


def check_trains_student(run: RunConfig) -> str:
    """The recipe is for verl's trainer, not for a defer head."""
    kind = run.relay.defer_training.kind
    if kind is not None:
        raise UserError(
            f"relay.defer_training.kind: {kind!r}: this recipe trains a defer head, and verl's trainer a student: run "
            "relay-verl defer-data, defer-train and calibrate, or set it to null"
        )
    return "the student"


def check_student_given(run: RunConfig) -> str:
    """A student is given."""
    path = run.student_path
    if not path:
        base = run.relay.warmup.base_model
        raise UserError(
            f"{KEY}: no student is given: set RELAY_STUDENT to the Hugging Face folder that the warm-up left "
            f"(global_step_N/huggingface of verl.trainer.sft_trainer +recipe={_warm_up_of(base)}), or give {KEY}=FOLDER"
        )
    return str(path)


def _warm_up_of(base: str | None) -> str:
    """The warm-up recipe of a base model."""
    recipes = (find_recipe(name) for name in recipe_names())
    return next((r.name for r in recipes if is_warm_up(r) and r.keys.get("model.path") == base), "warmup_NAME")


def check_student_size(run: RunConfig) -> str:
    """The student has the shape of the recipe's base model, as far as both are known here."""
    path, base = run.student_path, run.relay.warmup.base_model
    if base is None:
        return f"not compared: {BASE_KEY} is null"
    student, expected = shape_of(path), shape_of(base)
    for address, shape in ((path, student), (base, expected)):
        if shape is None:
            return f"not compared: the shape of {address} is not known here"
    assert student is not None
    assert expected is not None
    if _facts(student) != _facts(expected):
        different = [name for name in _COMPARED if _facts(student)[name] != _facts(expected)[name]]
        has, needs = (", ".join(f"{name} {_facts(shape)[name]}" for name in different) for shape in (student, expected))
        raise UserError(
            f"{KEY}: {path} has {has}, but {BASE_KEY}={base} has {needs}: set RELAY_STUDENT to a student of that size, "
            f"take the recipe of this student's size, or name the model that it was warmed up from as {BASE_KEY}"
        )
    return f"that of {base}"


def _facts(shape: Shape) -> dict[str, int]:
    return {name: getattr(shape, field) for name, field in _COMPARED.items()}


def check_warmed_up(run: RunConfig) -> str:
    """A student that is to call has a record of a warm-up."""
    settings = run.relay
    path = str(run.student_path)
    if not settings.needs_teacher:
        return "not needed: no calls"
    if path == settings.warmup.base_model:
        return CheckWarning(
            f"{KEY}: {path} is the model before the warm-up, which writes no command: set RELAY_STUDENT to the student "
            "that the warm-up left"
        )
    folder = Path(path).expanduser()
    if not folder.is_dir():
        what = "remote" if "://" in path or is_local(path) else "on the hub"
        return f"not checked: {path} is {what}"
    if says_warmed_up(folder):
        return "recorded"
    return CheckWarning(
        f"{KEY}: {path} has no {WARMUP_FILE}, which the warm-up leaves: a student that was not warmed up writes no "
        "command and never calls; look at call_rate of the first validation and step"
    )
