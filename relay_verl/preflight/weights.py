"""How large a model is, from the files in its folder; one that is on the hub is not asked."""

from __future__ import annotations

import json
from pathlib import Path

_BYTES = {"float64": 8, "float32": 4, "float16": 2, "bfloat16": 2}


def weight_bytes(path: str) -> int | None:
    """Bytes of the weights in a model folder; None if it is none, or its weights are not safetensors."""
    files = list(Path(path).expanduser().glob("*.safetensors"))
    return sum(file.stat().st_size for file in files) or None


def num_parameters(path: str) -> int | None:
    """Parameters of the model in a folder, from its files' size and its `dtype`; None if they are not to be known."""
    size = weight_bytes(path)
    if size is None:
        return None
    try:
        config = json.loads((Path(path).expanduser() / "config.json").read_text())
    except (OSError, ValueError):
        return None
    dtype = str(config.get("dtype") or config.get("torch_dtype") or "float32")
    return size // _BYTES[dtype] if dtype in _BYTES else None
