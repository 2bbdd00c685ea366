"""The model card of an export, in the hub's standard: front matter, and what the checkpoint's record says."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from relay_verl.checkpoints.record import CheckpointRecord
from relay_verl.checkpoints.scale import Scale
from relay_verl.config import ConfigError

CARD_FILE = "README.md"
TAG = "relay-verl"
"""Says in the card's front matter that this package exported the model."""
STUDENT, TEACHER = "actor_rollout_ref.model.path", "relay.teacher.path"
_HUB_ID = re.compile(r"[\w.-]+(/[\w.-]+)?")


def card(
    record: CheckpointRecord | None,
    metrics: Path | None,
    *,
    name: str,
    dtype: str,
    lora: Scale | None = None,
    is_adapter: bool = False,
) -> str:
    """The card's text. Of a path on this machine it has the last part alone.

    `lora` is the scale of a student under LoRA, whose adapter is merged into the base or, `is_adapter`, all there is.

    Raises:
        ConfigError: the metrics file cannot be read.
    """
    from huggingface_hub import ModelCard, ModelCardData

    config = record.run.config if record else {}
    logged = read_step(metrics, record.step) if metrics and record else {}
    of_training = {**(record.metrics if record else {}), **_with_prefix(logged, "relay/")}
    data = ModelCardData(
        base_model=_hub_id(config.get(STUDENT)),
        library_name="peft" if is_adapter else "transformers",
        pipeline_tag="text-generation",
        tags=[TAG, "verl", "grpo", *(["lora"] if lora else []), "arxiv:2601.05167"],
    )
    made = ModelCard.from_template(
        data,
        template_path=str(Path(__file__).with_name("card.md")),
        name=name,
        dtype=dtype,
        lora=lora,
        is_adapter=is_adapter,
        base=_shown(STUDENT, config.get(STUDENT)),
        record=record,
        teacher=_shown(TEACHER, config.get(TEACHER)),
        settings={
            key: _shown(key, config[key]) for key in sorted(config) if _is_shown(key) and config[key] is not None
        },
        metrics={"Metrics of its step": of_training, "Validation": _with_prefix(logged, "val-")},
        versions=", ".join(f"{package} {number}" for package, number in record.run.versions.items()) if record else "",
    )
    return str(made)


def read_step(file: Path, step: int) -> dict[str, float]:
    """The metrics of one step in verl's metrics file; empty if it has none of that step.

    Raises:
        ConfigError: the file cannot be read.
    """
    found: dict[str, float] = {}
    try:
        for line in Path(file).read_text(encoding="utf-8").splitlines():
            entry = json.loads(line)
            if entry["step"] == step:
                found |= {key: value for key, value in entry["data"].items() if isinstance(value, int | float)}
    except OSError as error:
        raise ConfigError(f"{file} cannot be read: {error.strerror}") from None
    except (ValueError, KeyError, TypeError, AttributeError):
        raise ConfigError(f"{file} is no metrics file of verl's logger `file`") from None
    return found


def _is_shown(key: str) -> bool:
    """Keys that say how the model is to be used and what it was trained for."""
    parts = key.split(".")
    return key == STUDENT or (
        parts[0] == "relay"
        and (len(parts) == 2 or parts[1] == "reward" or key in (TEACHER, "relay.filter.min_pass_rate"))
    )


def _shown(key: str, value: Any) -> Any:
    return value if value is None or not key.endswith(".path") or _hub_id(value) else Path(value).name


def _hub_id(address: str | None) -> str | None:
    """A model's id on the hub; None for a folder of this machine."""
    is_id = address and _HUB_ID.fullmatch(address) and not Path(address).exists()
    return address if is_id else None


def _with_prefix(values: Mapping[str, float], prefix: str) -> dict[str, float]:
    return {key: value for key, value in values.items() if key.startswith(prefix)}
