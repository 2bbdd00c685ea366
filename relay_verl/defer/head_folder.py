"""The folder of a head: `defer_head.json` and, for a head with weights, `defer_head.safetensors`.

Invariants: a folder that is read is whole and valid, or the one error names the file and the key; a writer that is
killed leaves the old head or a folder without `defer_head.json`, which is written last. Reading the description imports
no torch.
"""

from __future__ import annotations

import hashlib
import json
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING

from relay_verl.config.validation import validate
from relay_verl.defer.head_info import HeadInfo
from relay_verl.errors import UserError, as_user_error
from relay_verl.files import read_tensor_header, reading, replace_file, replacing, sha256_of, writing

if TYPE_CHECKING:
    from relay_verl.defer.heads import DeferHead

INFO_FILE = "defer_head.json"
WEIGHTS_FILE = "defer_head.safetensors"
MAX_BYTES = 1 << 20
"""Longest description that is read."""


def save_head(folder: Path, head: DeferHead, info: HeadInfo) -> None:
    """Write a head; replaces one that is there.

    Args:
        folder: made if it is not there.
        head: of the kind that `info` says.
        info: the description.

    Raises:
        UserError: the folder cannot be written.
    """
    from safetensors.torch import save_file

    assert head.kind is info.kind, (head.kind, info.kind)
    folder = Path(folder)
    with writing():
        folder.mkdir(parents=True, exist_ok=True)
        # a reader in between sees no head, not weights under another description
        (folder / INFO_FILE).unlink(missing_ok=True)
        (folder / WEIGHTS_FILE).unlink(missing_ok=True)
        if info.kind.has_weights:
            tensors = {name: tensor.detach().cpu().contiguous() for name, tensor in head.state_dict().items()}
            with replacing(folder / WEIGHTS_FILE) as temporary:
                save_file(tensors, str(temporary))
        save_info(folder, info)


def save_info(folder: Path, info: HeadInfo) -> None:
    """Write the description alone, such as a calibrated threshold. Raises OSError."""
    content = json.dumps(asdict(info), indent=2, ensure_ascii=False) + "\n"
    replace_file(Path(folder) / INFO_FILE, content.encode())


def read_info(folder: Path | str, *, hidden_size: int | None = None) -> HeadInfo:
    """The description of the head in a folder.

    Args:
        folder: of the head.
        hidden_size: of the student; None does not check.

    Raises:
        UserError: the folder has no head, it is not whole, or it is for hidden states of another size.
    """
    file = Path(folder).expanduser() / INFO_FILE
    if not file.is_file():
        raise UserError(f"{folder}: expected the folder of a defer head, with {INFO_FILE} in it")
    with reading(file):
        content = file.read_bytes() if file.stat().st_size <= MAX_BYTES else b""
    with as_user_error((ValueError, RecursionError), f"{file} is not JSON of at most {MAX_BYTES:,} bytes"):
        values = json.loads(content)
    if not isinstance(values, dict):
        raise UserError(f"{file}: expected a JSON object, got {values!r:.80}")
    info = validate(HeadInfo, values, f"{file}: ")
    if info.kind.has_weights:
        if hidden_size is not None and info.hidden_size != hidden_size:
            raise UserError(
                f"{file}: hidden_size: {info.hidden_size}: the student's hidden states have {hidden_size}; a head fits "
                f"the student that it was trained for{f', {info.student}' if info.student else ''}"
            )
        weights = file.with_name(WEIGHTS_FILE)
        with as_user_error((OSError, ValueError), f"{weights} cannot be read"):
            read_tensor_header(weights)
    return info


def head_sha256(folder: Path | str) -> str:
    """A hash of what decides a head's scores, and of its threshold. Raises UserError, as `read_info`."""
    info = read_info(folder)
    decisive = {"kind": info.kind, "threshold": info.threshold, "step_end": info.step_end}
    if info.kind.has_weights:
        decisive["weights"] = sha256_of(Path(folder).expanduser() / WEIGHTS_FILE)
    return hashlib.sha256(json.dumps(decisive, sort_keys=True).encode()).hexdigest()


def load_head(folder: Path | str, *, hidden_size: int | None = None) -> tuple[DeferHead, HeadInfo]:
    """The head in a folder, in evaluation mode, in float32 on CPU, and its description.

    Args:
        folder: of the head.
        hidden_size: of the student; None does not check.

    Raises:
        UserError: as `read_info`; or its weights are those of another head.
    """
    from safetensors import SafetensorError
    from safetensors.torch import load_file

    from relay_verl.defer.heads import make_head

    info = read_info(folder, hidden_size=hidden_size)
    head = make_head(info)
    if info.kind.has_weights:
        file = Path(folder).expanduser() / WEIGHTS_FILE
        with as_user_error((OSError, SafetensorError, RuntimeError), f"{file}: not the weights of a {info.kind} head"):
            head.load_state_dict(load_file(file))
    return head.eval(), info
