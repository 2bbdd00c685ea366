"""verl's FSDP merger, which keeps the type that it is told, unpickles nothing but tensors, and merges a LoRA adapter.

verl's own casts all weights to bfloat16, loads with `weights_only=False`, and writes the base model without its
adapter, which it leaves in a folder of its own. Remove this when it does none of these.
"""

from __future__ import annotations

from pathlib import Path
from pickle import UnpicklingError
from typing import Any

import torch
from torch.distributed.tensor import DTensor  # registers what a shard is made of as safe to load
from transformers import AutoConfig
from verl.model_merger.base_model_merger import ModelMergerConfig
from verl.model_merger.fsdp_model_merger import FSDPModelMerger, merge_non_dtensor_shards
from verl.utils import hf_tokenizer

from relay_verl.checkpoints.adapter import Base, has_adapter, to_peft, write_adapter
from relay_verl.errors import UserError

NO_ADAPTER = "{actor} was trained without LoRA and has no adapter: leave out --keep-adapter"


class DtypeMerger(FSDPModelMerger):
    """Merges the shards of pure FSDP, of one or two mesh dimensions, into weights of one type."""

    def __init__(self, config: ModelMergerConfig, dtype: str, base: Base, *, keep_adapter: bool = False):
        """`dtype` is torch's name of a floating type; `base` and `keep_adapter` are about a student under LoRA."""
        super().__init__(config)
        self._dtype = getattr(torch, dtype)
        self._base = base
        self._keep_adapter = keep_adapter

    def _load(self, world_size: int, rank: int) -> dict[str, Any]:
        file = Path(self.config.local_dir) / f"model_world_size_{world_size}_rank_{rank}.pt"
        try:
            return torch.load(file, map_location="cpu", weights_only=True)
        except UnpicklingError:
            raise UserError(f"{file} holds more than tensors, and is not loaded") from None

    def _load_rank_zero_state_dict(self, world_size: int) -> dict[str, Any]:
        return self._load(world_size, 0)

    def _load_and_merge_state_dicts(
        self, world_size: int, total_shards: int, mesh_shape: tuple[int, ...], mesh_dim_names: tuple[str, ...]
    ) -> dict[str, Any]:
        shards = [self._load(world_size, rank) for rank in range(total_shards)]
        is_lora = has_adapter(shards[0])  # then the type is chosen after the sum
        merged = {}
        for key in list(shards[0]):
            pieces = [shard.pop(key) for shard in shards]
            if isinstance(pieces[0], DTensor):
                placement = pieces[0].placements[-1]  # the dimensions before it are replicas
                whole = self._merge_by_placement([piece._local_tensor for piece in pieces], placement)
            else:
                whole = merge_non_dtensor_shards(key, pieces)
            merged[key] = whole if is_lora else self._cast(whole)
        return merged

    def _cast(self, weight: torch.Tensor) -> torch.Tensor:
        return weight.to(self._dtype) if weight.is_floating_point() else weight

    def save_hf_model_and_tokenizer(self, state_dict: dict[str, Any]) -> None:
        """verl's, with the adapter merged or apart, and the type in the configuration, where verl leaves bfloat16."""
        actor = Path(self.config.local_dir)
        if has_adapter(state_dict):
            peft_model = to_peft(
                state_dict, actor, self._base, self.get_transformers_auto_model_class(), self.model_config
            )
            if self._keep_adapter:
                write_adapter(peft_model, Path(self.config.target_dir), self._dtype)
                hf_tokenizer(self.hf_model_config_path).save_pretrained(self.config.target_dir)
                return
            merged = peft_model.merge_and_unload().state_dict()
            state_dict = {name: self._cast(weight) for name, weight in merged.items()}
        elif self._keep_adapter:
            raise UserError(NO_ADAPTER.format(actor=actor))
        super().save_hf_model_and_tokenizer(state_dict)
        config = AutoConfig.from_pretrained(self.config.target_dir)
        config.dtype = self._dtype
        config.save_pretrained(self.config.target_dir)
