"""A small text file with its own hash: the first line is `# ` and JSON with `sha256`, the rest is the text.

Invariant: `read_sealed` of a file that `seal` made gives what was sealed; one of which any character of header or text
was changed afterwards is refused.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from relay_verl.errors import UserError, as_user_error
from relay_verl.files import reading

_START = "# "


def seal(header: Mapping[str, Any], text: str) -> bytes:
    """The file's content.

    Args:
        header: as JSON's types, without `sha256`.
        text: the rest.
    """
    line = json.dumps({"sha256": _sha256(header, text), **header}, ensure_ascii=False)
    return f"{_START}{line}\n{text}".encode()


def read_sealed(path: Path) -> tuple[dict[str, Any], str]:
    """Header, without its hash, and text.

    Raises:
        UserError: it cannot be read, has no header, or was edited after it was written.
    """
    with reading(path), as_user_error(UnicodeDecodeError, str(path)):
        content = path.read_bytes().decode()
    line, _, text = content.partition("\n")
    with as_user_error((ValueError, RecursionError), f"{path}: expected {_START!r} and JSON in the first line"):
        header = json.loads(line.removeprefix(_START)) if line.startswith(_START) else None
    if not isinstance(header, dict) or "sha256" not in header:
        raise UserError(f"{path}: expected a data file, whose first line is {_START!r} and JSON with sha256")
    expected = header.pop("sha256")
    if (actual := _sha256(header, text)) != expected:
        raise UserError(
            f"{path} was edited after it was written: its content has the SHA-256 {actual}, its first line says "
            f"{expected}; `relay-verl condense` writes it anew"
        )
    return header, text


def _sha256(header: Mapping[str, Any], text: str) -> str:
    lines = json.dumps(header, sort_keys=True, ensure_ascii=False)
    return hashlib.sha256(f"{lines}\n{text}".encode()).hexdigest()
