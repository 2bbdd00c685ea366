"""What a checkpoint's record says of how its student is to be used: the `relay.json` of an export."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import fields
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from relay_verl.checkpoints.model_name import shown
from relay_verl.checkpoints.record import CheckpointRecord
from relay_verl.checkpoints.relay_file import RelayFile, RelayLimits, WriterSampling
from relay_verl.config.validation import validate
from relay_verl.errors import UserError
from relay_verl.files import sha256_of
from relay_verl.messages import content_text
from relay_verl.models.tokenizers import read_tokenizer, tokenizer_sha256

_TEMPLATE = "data.apply_chat_template_kwargs."
_NUM_ROWS = 32
"""Rows of the training file whose system messages are compared."""


def relay_of(record: CheckpointRecord | None, tokenizer: Path) -> RelayFile:
    """How the student of a checkpoint is to be used; the defaults where the record does not say.

    Args:
        record: the checkpoint's; without one nothing is known.
        tokenizer: folder with the student's tokenizer, which its teacher shares unless it stood behind a text bridge.

    Raises:
        UserError: the record has a value that no `relay.json` may have, such as a policy of code.
    """
    if record is None:
        return RelayFile()
    config = record.run.config
    teacher = _teacher_of(config)
    limits = _given(config, "relay.", (field.name for field in fields(RelayLimits)))
    limits |= _given({"max_response_tokens": config.get("data.max_response_length")}, "", ["max_response_tokens"])
    names = [field.name for field in fields(WriterSampling)]
    values = {
        **_given(config, "relay.", ["policy"]),
        "limits": limits,
        "teacher": {
            "name": shown(teacher.get("path") or teacher.get("model")),
            "tokenizer_sha256": _tokenizer_of(teacher, tokenizer),
        },
        "template": {"chat_template_kwargs": _template_of(config), "system": _system_of(record)},
        "sampling": {"student": _given(config, "actor_rollout_ref.rollout.", names)},
    }
    if sampling := _given(teacher, "", names):
        values["sampling"]["teacher"] = RelayFile().sampling.teacher.parameters() | sampling
    return validate(RelayFile, values, "the record: ")


def _given(config: Mapping[str, Any], prefix: str, names: Iterable[str]) -> dict[str, Any]:
    """The values at these keys; without those that the config does not have, which keep their defaults. Null is a
    value of `max_calls` alone."""
    return {
        name: config[prefix + name]
        for name in names
        if prefix + name in config and (config[prefix + name] is not None or name == "max_calls")
    }


def _teacher_of(config: Mapping[str, Any]) -> dict[str, Any]:
    """The settings of the teacher, the first of several; empty where no call was served."""
    if config.get("relay.max_calls") == 0:
        return {}
    listed = [teacher for teacher in config.get("relay.teachers") or () if teacher.get("weight", 1) > 0]
    start = "relay.teacher."
    return dict(listed[0]) if listed else {k.removeprefix(start): v for k, v in config.items() if k.startswith(start)}


def _tokenizer_of(teacher: Mapping[str, Any], students: Path) -> str | None:
    """The hash of the tokenizer that the teacher read and wrote with; None where it is not known here."""
    own = teacher.get("tokenizer") or teacher.get("path")
    if not teacher or (teacher.get("text_bridge") and not Path(own or "").is_dir()):
        return None
    try:
        return tokenizer_sha256(read_tokenizer("tokenizer", str(own if teacher.get("text_bridge") else students)))
    except UserError:  # with code of its own, or with none: whoever loads it says so
        return None


def _template_of(config: Mapping[str, Any]) -> dict[str, Any]:
    """`data.apply_chat_template_kwargs`, of which the record has the leaves by their dotted keys."""
    template: dict[str, Any] = {}
    for key, value in config.items():
        if key.startswith(_TEMPLATE):
            *groups, name = key.removeprefix(_TEMPLATE).split(".")
            node = template
            for group in groups:
                node = node.setdefault(group, {})
            node[name] = value
    return template


def _system_of(record: CheckpointRecord) -> str | None:
    """The one system message of the training's first rows; None where they have none or several, or where the file that
    was trained on is not here any more."""
    config = record.run.config
    files, key = config.get("data.train_files"), config.get("data.prompt_key", "prompt")
    file = Path(str(files if isinstance(files, str) else (files or [""])[0])).expanduser()
    if not file.is_file() or not record.run.train_files or record.run.train_files[0] != sha256_of(file):
        return None
    try:
        batch = next(pq.ParquetFile(file).iter_batches(_NUM_ROWS, columns=[key]), None)
    except (OSError, pa.ArrowException):  # JSON, which verl reads too
        return None
    chats = batch.column(0).to_pylist() if batch is not None and batch.num_columns else []
    systems = {_system_in(chat) for chat in chats}
    return systems.pop() if len(systems) == 1 else None


def _system_in(chat: Any) -> str | None:
    first = chat[0] if isinstance(chat, list) and chat else None
    is_system = isinstance(first, Mapping) and first.get("role") == "system"
    return content_text(first["content"]) if is_system and first else None
