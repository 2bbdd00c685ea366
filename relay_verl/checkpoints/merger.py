"""verl's FSDP merger, which keeps the type that it is told and unpickles nothing but tensors.

verl's own casts all weights to bfloat16 and loads with `weights_only=False`. Remove this when it does neither.
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

from relay_verl.config import ConfigError


class DtypeMerger(FSDPModelMerger):
    """Merges the shards of pure FSDP, of one or two mesh dimensions, into weights of one type."""

    def __init__(self, config: ModelMergerConfig, dtype: str):
        """`dtype` is torch's name of a floating type."""
        super().__init__(config)
        self._dtype = getattr(torch, dtype)

    def _load(self, world_size: int, rank: int) -> dict[str, Any]:
        file = Path(self.config.local_dir) / f"model_world_size_{world_size}_rank_{rank}.pt"
        try:
            return torch.load(file, map_location="cpu", weights_only=True)
        except UnpicklingError:
            raise ConfigError(f"{file} holds more than tensors, and is not loaded") from None

    def _load_rank_zero_state_dict(self, world_size: int) -> dict[str, Any]:
        return self._load(world_size, 0)

    def _load_and_merge_state_dicts(
        self, world_size: int, total_shards: int, mesh_shape: tuple[int, ...], mesh_dim_names: tuple[str, ...]
    ) -> dict[str, Any]:
        shards = [self._load(world_size, rank) for rank in range(total_shards)]
        merged = {}
        for key in list(shards[0]):
            pieces = [shard.pop(key) for shard in shards]
            if isinstance(pieces[0], DTensor):
                placement = pieces[0].placements[-1]  # the dimensions before it are replicas
                whole = self._merge_by_placement([piece._local_tensor for piece in pieces], placement)
            else:
                whole = merge_non_dtensor_shards(key, pieces)
            merged[key] = whole.to(self._dtype) if whole.is_floating_point() else whole
        return merged

    def save_hf_model_and_tokenizer(self, state_dict: dict[str, Any]) -> None:
        """verl's, and the type in the configuration, where verl leaves bfloat16."""
        super().save_hf_model_and_tokenizer(state_dict)
        config = AutoConfig.from_pretrained(self.config.target_dir)
        config.dtype = self._dtype
        config.save_pretrained(self.config.target_dir)
