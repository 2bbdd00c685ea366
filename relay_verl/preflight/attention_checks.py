"""Whether the attention that a recipe asks for can run here; the same check for verl's GRPO and SFT trainers."""

from __future__ import annotations

import importlib

from omegaconf import OmegaConf

from relay_verl.errors import UserError
from relay_verl.models.attention import FLASH, RESOLVER, SDPA
from relay_verl.preflight.check import CheckWarning
from relay_verl.run_config import VerlConfig
from relay_verl.versions import find_version, is_installed

INSTALL = "pip install flash-attn --no-build-isolation"


def check_attention(config: VerlConfig) -> str:
    """flash-attn is there and loads if the config asks for it; sequence parallelism has what it needs.

    Where the recipe's own choice fell to sdpa on a GPU, that is a warning: the run is right, and slower.
    """
    model = "actor_rollout_ref.model" if "actor_rollout_ref" in config else "model"
    key = f"{model}.override_config.attn_implementation"
    attention = str(OmegaConf.select(config, key) or FLASH)  # verl's default
    is_packed = bool(OmegaConf.select(config, f"{model}.use_remove_padding"))
    _check_sequence_parallel(config, key, attention, f"{model}.use_remove_padding", is_packed)
    text = f"{attention}, {'packed sequences' if is_packed else 'padded sequences'}"
    if attention == FLASH:
        return _check_flash(key) or text
    if attention == SDPA and config.trainer.device != "cpu" and _is_our_choice(config, key):
        return CheckWarning(
            f"{text}: flash-attn is not installed; {SDPA} gives the same numbers but takes more time and memory on "
            f"long responses; {INSTALL}"
        )
    return text


def _check_flash(key: str) -> CheckWarning | None:
    """flash-attn, or the package `kernels`, with which transformers takes it from the hub."""
    if not is_installed("flash_attn"):
        if is_installed("kernels"):
            return None
        raise UserError(f"{key}={FLASH}: the package flash-attn is not installed; {INSTALL}, or set {key}={SDPA}")
    try:
        importlib.import_module("flash_attn")
    except ImportError as error:
        # A build for another torch. Only a warning: this machine may lack what the nodes with GPUs have.
        reason = " ".join(str(error).split())
        return CheckWarning(
            f"{key}={FLASH}: flash-attn {find_version('flash-attn')} does not load with torch "
            f"{find_version('torch')} here ({reason}); build it again ({INSTALL}), or set {key}={SDPA}"
        )
    return None


def _check_sequence_parallel(config: VerlConfig, key: str, attention: str, packed_key: str, is_packed: bool) -> None:
    """verl splits sequences over GPUs inside flash-attention's call and on packed sequences alone."""
    for part in ("actor_rollout_ref.actor", "actor_rollout_ref.actor.fsdp_config", "actor_rollout_ref.ref", "engine"):
        size_key = f"{part}.ulysses_sequence_parallel_size"
        size = OmegaConf.select(config, size_key) or 1
        if size > 1 and attention != FLASH:
            raise UserError(
                f"{size_key}={size} needs {key}={FLASH}, got {attention}; install flash-attn, or set it to 1"
            )
        if size > 1 and not is_packed:
            raise UserError(f"{size_key}={size} needs {packed_key}=true")


def _is_our_choice(config: VerlConfig, key: str) -> bool:
    parent, _, name = key.rpartition(".")
    node = OmegaConf.to_container(OmegaConf.select(config, parent) or OmegaConf.create({}), resolve=False)
    return isinstance(node, dict) and RESOLVER in str(node.get(name))
