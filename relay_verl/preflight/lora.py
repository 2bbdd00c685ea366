"""Whether what a recipe says of LoRA means what it looks like, in verl's GRPO and SFT trainers alike.

verl 0.9.1 has two blocks of keys: `model.lora_*` is FSDP's, `model.lora.*` Megatron's, but for `model.lora.merge`. With
FSDP `lora.rank` trains all weights, and the reference is then the actor itself.
"""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

from omegaconf import ListConfig, OmegaConf

from relay_verl import cpu
from relay_verl.errors import UserError, as_user_error
from relay_verl.files import reading
from relay_verl.models.address import ADAPTER_FILE, weight_shapes
from relay_verl.preflight.check import CheckWarning
from relay_verl.recipes.adapter import ALL_LINEAR
from relay_verl.recipes.shapes import read_model_config
from relay_verl.run_config import VerlConfig

MAX_SERVED_RANK = 512
"""The largest rank of an adapter that vLLM serves."""
_FSDP = ("fsdp", "fsdp2")
_EMBEDDINGS = ("embed_tokens", "lm_head")
_OTHER_KINDS = ("use_dora", "use_rslora", "rank_pattern", "alpha_pattern", "modules_to_save", "trainable_token_indices")
"""Of an adapter_config.json: what adds something else than alpha / rank times B A to each adapted layer."""


def check_lora(config: VerlConfig) -> str:
    """The adapter that a config asks for can be trained, served and saved.

    Raises:
        UserError: naming the key.
    """
    is_grpo = "actor_rollout_ref" in config
    key = "actor_rollout_ref.model" if is_grpo else "model"
    actor = config.actor_rollout_ref.actor if is_grpo else config
    strategy = (actor if is_grpo else actor.get("engine") or {}).get("strategy")
    model = OmegaConf.select(config, key)
    rank = model.get("lora_rank") or 0
    if strategy not in _FSDP:
        return f"not checked: {strategy} has keys of its own"
    if (OmegaConf.select(model, "lora.rank") or 0) > 0:
        raise UserError(f"{key}.lora.rank={model.lora.rank} is Megatron's; {strategy} reads {key}.lora_rank: set that")
    if not isinstance(rank, int) or rank < 0:
        raise UserError(f"{key}.lora_rank={rank}: expected a whole number, 0 to train all weights")
    if model.get("lora_adapter_path") and not rank:
        raise UserError(f"{key}.lora_adapter_path={model.lora_adapter_path} needs the adapter's {key}.lora_rank")
    if is_grpo and cpu.is_chosen():
        is_apart = rank > 0 and not OmegaConf.select(model, "lora.merge")
        _check_load_format(config.actor_rollout_ref.rollout, is_apart=is_apart)
    if not rank:
        return "none: all weights are trained"
    alpha = model.get("lora_alpha")
    if not isinstance(alpha, int) or alpha < 1:
        raise UserError(f"{key}.lora_alpha={alpha}: expected a whole number above 0; alpha / rank scales the adapter")
    _check_targets(key, model)
    if model.get("lora_adapter_path"):
        _check_adapter(f"{key}.lora_adapter_path", model)
    if "hf_model" in (OmegaConf.select(actor, "checkpoint.save_contents") or []):
        contents = f"{'actor_rollout_ref.actor.' if is_grpo else ''}checkpoint.save_contents"
        raise UserError(
            f"{contents} has hf_model, in which verl writes PEFT's names where {key}.lora_rank={rank}: leave it out"
            + ("; `relay-verl export` writes a whole model" if is_grpo else f", or set {key}.lora_rank=0")
        )
    text = f"rank {rank}, alpha {alpha}"
    return _check_serving(key, model, config.actor_rollout_ref.rollout, text) if is_grpo else text


def _check_load_format(rollout: Any, *, is_apart: bool) -> None:
    """vLLM on CPU repacks the weights that it reads itself, and then takes none from the trainer but an adapter's."""
    if rollout.get("load_format") == cpu.READS_WEIGHTS and not is_apart:
        raise UserError(
            f"actor_rollout_ref.rollout.load_format={cpu.READS_WEIGHTS}: on CPU trained weights do not reach such an "
            "engine, only a LoRA adapter does (model.lora.merge=false); leave it at dummy"
        )


def _check_serving(key: str, model: Any, rollout: Any, text: str) -> str:
    """How the trained weights reach vLLM."""
    is_merged = bool(OmegaConf.select(model, "lora.merge"))
    if not is_merged and model.lora_rank > MAX_SERVED_RANK:
        raise UserError(
            f"{key}.lora_rank={model.lora_rank}: vLLM serves adapters up to rank {MAX_SERVED_RANK}; take a smaller "
            f"one, or {key}.lora.merge=true"
        )
    if is_merged and rollout.get("dtype") != "float32":
        return CheckWarning(
            f"{key}.lora.merge=true with actor_rollout_ref.rollout.dtype={rollout.get('dtype')}: the sum of base and "
            "adapter is rounded to 16 bits, in which the first, small updates vanish; set "
            "actor_rollout_ref.rollout.dtype=float32, or lora.merge=false"
        )
    return f"{text}, {'merged before vLLM gets the weights' if is_merged else 'served as an adapter'}"


def _check_targets(key: str, model: Any) -> None:
    """Each adapted module is in the model, and none of them is tied to another."""
    targets = model.get("target_modules")
    if targets is None or targets == ALL_LINEAR:
        return
    names = f"{key}.target_modules={targets}"
    try:
        if isinstance(targets, ListConfig | list):
            matchers = {str(name): re.compile(rf"(.*\.)?{re.escape(str(name))}") for name in targets}
        else:
            matchers = {str(targets): re.compile(str(targets))}
    except re.error as error:
        raise UserError(f"{names}: {ALL_LINEAR}, a list of names or a pattern of whole names; {error}") from None
    shapes = weight_shapes(str(model.path)) if model.get("path") else None
    if not matchers:
        raise UserError(f"{names}: name at least one module, or {ALL_LINEAR}")
    if shapes is None:  # on the hub, and not here yet
        return
    modules = {name.removesuffix(".weight") for name, shape in shapes.items() if len(shape) == 2}
    for target, matcher in matchers.items():
        if not any(matcher.fullmatch(module) for module in modules):
            there = ", ".join(sorted({module.rpartition(".")[2] for module in modules}))
            raise UserError(f"{names}: {target} is not a module of {model.path}, which has {there}")
    adapted = {module.rpartition(".")[2] for module in modules if any(m.fullmatch(module) for m in matchers.values())}
    tied = sorted(adapted & set(_EMBEDDINGS))
    if tied and _is_tied(str(model.path)):
        raise UserError(f"{names}: {tied[0]} of {model.path} is embedding and head in one, which LoRA would untie")


def _is_tied(address: str) -> bool:
    return bool((read_model_config(address) or {}).get("tie_word_embeddings"))


def _check_adapter(key: str, model: Any) -> None:
    """The adapter that training begins with is of the rank and alpha that the config says, and of the plain kind."""
    file = Path(str(model.lora_adapter_path)).expanduser() / ADAPTER_FILE
    if not file.is_file():
        raise UserError(f"{key}={model.lora_adapter_path} has no {ADAPTER_FILE}; give a PEFT adapter's folder")
    with reading(file), as_user_error(ValueError, lambda _: f"{key}: {file} is not JSON"):
        facts = json.loads(file.read_bytes())
    for name, ours in (("r", "lora_rank"), ("lora_alpha", "lora_alpha")):
        if facts.get(name) != model[ours]:
            raise UserError(f"{key}: {file} has {name}={facts.get(name)}, but {ours}={model[ours]}; set the same")
    for name in _OTHER_KINDS:
        if facts.get(name):
            raise UserError(f"{key}: {file} has {name}={facts[name]}, and only plain LoRA is exported")
