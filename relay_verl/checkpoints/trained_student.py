"""What the model card of an export says: what the student is, how to use it, its results, and what the checkpoint's
record says of its training.

Invariant: a card says nothing that is not known, and names no folder of this machine (`card_words`).
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import yaml
from huggingface_hub import metadata_load

from relay_verl.checkpoints.card import CARD_FILE, TAG
from relay_verl.checkpoints.card_results import Results
from relay_verl.checkpoints.card_words import command_of, numbers_of, settings_of
from relay_verl.checkpoints.metrics_log import read_log
from relay_verl.checkpoints.model_name import hub_id, shown
from relay_verl.checkpoints.record import CheckpointRecord
from relay_verl.checkpoints.relay_file import RelayFile
from relay_verl.checkpoints.scale import Scale
from relay_verl.errors import as_user_error
from relay_verl.files import reading
from relay_verl.models.address import ORIGIN_FILE, find_file

STUDENT, WARMUP_BASE = "actor_rollout_ref.model.path", "relay.warmup.base_model"
DATASETS = {"dapo_math_17k": "BytedTsinghua-SIA/DAPO-Math-17k"}
"""The hub's id of a training set by what its folder is called (`relay-verl data`)."""
LANGUAGE = "en"
"""Of the questions that the recipes train on."""


@dataclass(frozen=True)
class TrainedStudent:
    """An exported student, as the subject of a card."""

    record: CheckpointRecord | None
    """The checkpoint's; None if it has none."""
    name: str
    """What commands on the card call the model: its folder's name, or its id on the hub."""
    dtype: str
    """Of the weights."""
    relay: RelayFile = field(default_factory=RelayFile)
    """How the pair is to be used."""
    metrics: Path | None = None
    """verl's metrics file."""
    lora: Scale | None = None
    """Scale of a student under LoRA, whose adapter is merged into the base or, `is_adapter`, all there is."""
    is_adapter: bool = False
    """Whether the folder holds the adapter alone."""
    results: Sequence[Path] = ()
    """Results folders of `relay-verl eval` on this model."""
    license: str | None = None
    """The hub's name of the licence; the base model's if None."""

    def front_matter(self) -> dict[str, Any]:
        """The card's metadata under `ModelCardData`'s names.

        Raises:
            UserError: a result cannot be read.
        """
        known = _origin_of(self._config.get(WARMUP_BASE)) | _origin_of(self._config.get(STUDENT))
        base = known.get("base_model")
        relation = "adapter" if self.is_adapter else "finetune"
        return {
            "base_model": base,
            "base_model_relation": base and relation,
            "license": self.license or known.get("license"),
            "language": LANGUAGE,
            "datasets": _datasets(self._config),
            "library_name": "peft" if self.is_adapter else "transformers",
            "pipeline_tag": "text-generation",
            "tags": [TAG, "verl", "grpo", *(["lora"] if self.lora else []), "arxiv:2601.05167"],
            **Results.read(self.results).index(self.name),
        }

    def words(self) -> dict[str, Any]:
        """What the template `card.md` shows.

        Raises:
            UserError: the metrics file or a result cannot be read.
        """
        record, measured = self.record, Results.read(self.results)
        recipe = record.run.recipe if record else None
        logged = read_step(self.metrics, record.step) if self.metrics and record else {}
        template = dict(self.relay.template.chat_template_kwargs)
        versions = record.run.versions.items() if record else ()
        return {
            "origin": "training",
            "title": f"{self.name}: a student of the recipe {recipe}" if recipe else self.name,
            "name": self.name,
            "dtype": self.dtype,
            "lora": self.lora,
            "is_adapter": self.is_adapter,
            "base": shown(self._config.get(STUDENT)),
            "record": record,
            "relay": self.relay,
            "teacher": self.relay.teacher.name,
            "chat_arguments": f", chat_template_kwargs={template!r}" if template else "",
            "benchmark": measured.benchmark or "math-500",
            "results": measured.rows,
            "command": command_of(record.run.overrides) if record else "",
            "settings": settings_of(self._config),
            "numbers": numbers_of({**(record.metrics if record else {}), **logged}),
            "versions": ", ".join(f"{package} {number}" for package, number in versions),
        }

    @property
    def _config(self) -> Mapping[str, Any]:
        return self.record.run.config if self.record else {}


def read_step(file: Path, step: int) -> dict[str, float]:
    """The metrics of one step in verl's metrics file; empty if it has none of that step.

    Raises:
        UserError: the file cannot be read.
    """
    with reading(file), as_user_error(ValueError, lambda _: f"{file} is not a metrics file of verl's logger `file`"):
        values = read_log(file).get(step, {})
    return {key: value for key, value in values.items() if isinstance(value, int | float)}


def _origin_of(address: str | None) -> dict[str, str]:
    """What is known of a model, as far as it is: `base_model`, its id on the hub, and its `license`.

    Of a folder it is what `relay-verl models get` left there, else what its card says: the base of a model that was
    trained here is the one that its card names.
    """
    if not address:
        return {}
    origin = {"base_model": hub_id(address), "license": None}
    file, readme = find_file(address, ORIGIN_FILE) if not origin["base_model"] else None, find_file(address, CARD_FILE)
    with suppress(OSError, ValueError, AttributeError):  # another program's file
        name = json.loads(file.read_bytes()).get("hub_id") if file else None
        origin["base_model"] = name if isinstance(name, str) else origin["base_model"]
    with suppress(OSError, ValueError, yaml.YAMLError):  # no card's, or another program's file
        metadata = metadata_load(readme) if readme else None
        for key in origin:
            value = (metadata or {}).get(key)
            origin[key] = origin[key] or (value if isinstance(value, str) else None)
    return {key: value for key, value in origin.items() if value}


def _datasets(config: Mapping[str, Any]) -> list[str]:
    files = config.get("data.train_files")
    names = [files] if isinstance(files, str) else list(files or [])
    return list(dict.fromkeys(hub for name in names for part, hub in DATASETS.items() if part in str(name)))
