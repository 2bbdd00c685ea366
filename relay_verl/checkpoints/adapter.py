"""A checkpoint of a student under LoRA as a PEFT model: to be merged into its base, or written as an adapter.

Invariants: the sum is computed in 32 bits; every weight of the checkpoint has its place in the model, and the model has
no weight from elsewhere but the base's own, where a checkpoint holds the adapter alone (`checkpoint.save_lora_only`).
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from peft import LoraConfig, PeftModel, TaskType, get_peft_model

from relay_verl.checkpoints.scale import META_FILE, read_scale
from relay_verl.errors import UserError, as_user_error
from relay_verl.files import replace_file
from relay_verl.models.address import model_identity

_PREFIX = "base_model.model."
_FIRST = ".lora_A."


@dataclass(frozen=True)
class Base:
    """The model that a student under LoRA was trained on, by the run's record."""

    address: str | None
    """Folder or hub id; None without a record."""
    identity: str | None
    """What tells its files from another's; None for a hub id."""


def has_adapter(names: Iterable[str]) -> bool:
    """Whether names of weights are those of a model under LoRA."""
    return any("lora_" in name for name in names)


def to_peft(state: Mapping[str, torch.Tensor], actor: Path, base: Base, auto_class: Any, hf_config: Any) -> PeftModel:
    """The PEFT model with the weights in `state`, named as in verl's files, in 32 bits.

    Raises:
        UserError: rank or alpha is unknown, the base is not there, or weights are missing.
    """
    scale = read_scale(actor)
    if scale is None:
        raise UserError(f"{actor} holds an adapter, but no {META_FILE}, which says its lora_alpha")
    state = {name: weight.float() if weight.is_floating_point() else weight for name, weight in state.items()}
    for name, weight in state.items():
        if _FIRST in name and weight.shape[0] != scale.rank:
            raise UserError(f"{actor}: {name} has rank {weight.shape[0]}, but {META_FILE} says r={scale.rank}")
    is_adapter_alone = all("lora_" in name for name in state)
    with torch.device("meta"):
        model = None if is_adapter_alone else auto_class.from_config(hf_config)
    model = _load_base(base, auto_class, actor) if model is None else model
    targets = {name.partition(_FIRST)[0].removeprefix(_PREFIX) for name in state if _FIRST in name}
    lora = LoraConfig(
        task_type=TaskType.CAUSAL_LM, r=scale.rank, lora_alpha=scale.alpha, target_modules=_shorten(targets, model)
    )
    peft_model = get_peft_model(model, lora)
    peft_model.peft_config["default"].base_model_name_or_path = base.address
    missing, unexpected = peft_model.load_state_dict(state, strict=False, assign=True)
    peft_model.get_base_model().tie_weights()  # assigned by name, a tied head has become a weight of its own
    lacking = [name for name in missing if "lora_" in name or not is_adapter_alone]
    if lacking or unexpected:
        what = f"has no {lacking[0]}" if lacking else f"has {unexpected[0]}, which its model does not have"
        raise UserError(f"{actor} {what}: its weights are not those of a {hf_config.model_type} under LoRA")
    return peft_model


def write_adapter(peft_model: PeftModel, out: Path, dtype: torch.dtype) -> None:
    """Write `adapter_config.json` and `adapter_model.safetensors` as PEFT does."""
    for name, weight in peft_model.named_parameters():
        if "lora_" in name:
            weight.data = weight.data.to(dtype)
    peft_model.save_pretrained(str(out), save_embedding_layers=False)
    # PEFT writes the modules' names from a set: in order, the same export twice gives the same file.
    file = out / "adapter_config.json"
    content = json.loads(file.read_bytes())
    content["target_modules"].sort()
    replace_file(file, json.dumps(content, indent=2).encode())


def _load_base(base: Base, auto_class: Any, actor: Path) -> Any:
    """The base's own weights."""
    if base.address is None:
        raise UserError(f"{actor} holds an adapter alone, and has no record of its base model")
    identity = model_identity(base.address)
    if base.identity is not None and identity != base.identity:
        what = "is not there" if identity is None else "has other files now"
        raise UserError(f"{actor} holds an adapter alone, and its base model {base.address} {what}")
    with as_user_error((OSError, ValueError), f"{actor} holds an adapter alone; its base {base.address} does not load"):
        return auto_class.from_pretrained(base.address, dtype=torch.float32)


def _shorten(targets: set[str], model: Any) -> list[str]:
    """The adapted modules by the last part of their names, if those name no further module of the model."""
    last = {name.rpartition(".")[2] for name in targets}
    named = {name for name, _ in model.named_modules() if name.rpartition(".")[2] in last}
    return sorted(last if named == targets else targets)
