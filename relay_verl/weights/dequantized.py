"""What the model card of a model says whose weights came in packages."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch

from relay_verl.weights.catalog import PackagedModel


@dataclass(frozen=True)
class DequantizedModel:
    """A model of the catalog whose weights were dequantized here, as the subject of a card."""

    model: PackagedModel
    """Which one."""
    dtype: torch.dtype
    """Of the dequantized weights."""

    def front_matter(self) -> dict[str, Any]:
        """The card's metadata under `ModelCardData`'s names."""
        return {
            "base_model": self.model.hub_id,
            "license": self.model.licence,
            "library_name": "transformers",
            "pipeline_tag": "text-generation",
        }

    def words(self) -> dict[str, Any]:
        """What the template `card.md` shows."""
        model = self.model
        source = (
            f"the GGUF file in parts 1 to {len(model.parts)} of the Python packages `{model.package}`, version "
            f"{model.version} (SHA-256 `{model.sha256}`), read as zip files. The original is "
            f"[{model.hub_id}](https://huggingface.co/{model.hub_id})"
        )
        changes = (
            f"Quantization: {model.quantization}. The weights here are those numbers in "
            f"{str(self.dtype).removeprefix('torch.')}, so results are the quantized model's. The file's matrix of the "
            "output stands for the embedding too, which are one in the original."
        )
        return {
            "origin": "packages",
            "title": f"{model.hub_id}, dequantized",
            "source": source,
            "changes": changes,
        }
