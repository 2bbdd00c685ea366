"""Model cards in the hub's standard, by one template for all models that this package writes: `card.md`.

`card` is that of an export: what the student is, how to use it, its results, and what the checkpoint's record says of
its training. `packaged_card` is that of weights that came in packages.

Invariant: a card says nothing that is not known, and names no folder of this machine (`card_words`).
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from jinja2 import Environment, StrictUndefined

from relay_verl.checkpoints.card_results import Results
from relay_verl.checkpoints.card_words import command_of, numbers_of, settings_of, without_paths
from relay_verl.checkpoints.metrics_log import read_log
from relay_verl.checkpoints.record import CheckpointRecord
from relay_verl.checkpoints.scale import Scale
from relay_verl.errors import as_user_error
from relay_verl.files import reading

CARD_FILE = "README.md"
TAG = "relay-verl"
"""Says in the card's front matter that this package exported the model."""
STUDENT, TEACHER = "actor_rollout_ref.model.path", "relay.teacher.path"
DATASETS = {"dapo_math_17k": "BytedTsinghua-SIA/DAPO-Math-17k"}
"""The hub's id of a training set by what its folder is called (`relay-verl data`)."""
LANGUAGE = "en"
"""Of the questions that the recipes train on."""
_HUB_ID = re.compile(r"[\w.-]+(/[\w.-]+)?")


def card(
    record: CheckpointRecord | None,
    metrics: Path | None,
    *,
    name: str,
    dtype: str,
    lora: Scale | None = None,
    is_adapter: bool = False,
    results: Sequence[Path] = (),
) -> str:
    """The card of an export. `lora` is the scale of a student under LoRA, whose adapter is merged into the base or,
    `is_adapter`, all there is; `results` are results folders of `relay-verl eval` on this model.

    Raises:
        UserError: the metrics file or a result cannot be read.
    """
    config = record.run.config if record else {}
    logged = read_step(metrics, record.step) if metrics and record else {}
    base, known = config.get(STUDENT), _front_matter(config.get(STUDENT))
    measured = Results.read(results)
    teacher = config.get(TEACHER) or config.get("relay.teacher.model")
    return _render(
        {
            "base_model": _hub_id(base) or known.get("base_model"),
            "license": known.get("license"),
            "language": LANGUAGE,
            "datasets": _datasets(config),
            "library_name": "peft" if is_adapter else "transformers",
            "pipeline_tag": "text-generation",
            "tags": [TAG, "verl", "grpo", *(["lora"] if lora else []), "arxiv:2601.05167"],
            **measured.index(name),
        },
        title=f"{name}: a student of the recipe {record.run.recipe}" if record and record.run.recipe else name,
        origin="training",
        name=name,
        dtype=dtype,
        lora=lora,
        is_adapter=is_adapter,
        base=_shown(base),
        record=record,
        teacher=_shown(teacher),
        benchmark=measured.benchmark or "math-500",
        max_response_tokens=config.get("data.max_response_length", 8192),
        max_calls=config.get("relay.max_calls"),
        max_tokens_per_call=config.get("relay.max_tokens_per_call", 4096),
        results=measured.rows,
        command=command_of(record.run.overrides) if record else "",
        settings=settings_of(config),
        numbers=numbers_of({**(record.metrics if record else {}), **logged}),
        versions=", ".join(f"{package} {number}" for package, number in record.run.versions.items()) if record else "",
    )


def packaged_card(*, hub_id: str, license: str, source: str, changes: str) -> str:
    """The card of a model whose weights came in packages; `source` and `changes` say which, and what became of them."""
    data = {"base_model": hub_id, "license": license, "library_name": "transformers", "pipeline_tag": "text-generation"}
    return _render(data, title=f"{hub_id}, dequantized", origin="packages", source=source, changes=changes)


def _render(data: Mapping[str, Any], **context: Any) -> str:
    from huggingface_hub import ModelCardData

    matter = ModelCardData(**{key: value for key, value in data.items() if value})
    source = Path(__file__).with_name("card.md").read_text(encoding="utf-8")
    blocks: dict[str, Any] = {"trim_blocks": True, "lstrip_blocks": True, "keep_trailing_newline": True}
    template = Environment(undefined=StrictUndefined, **blocks).from_string(source)
    text = template.render(card_data=matter.to_yaml(), license=data.get("license"), **context)
    return re.sub(r"\n{3,}", "\n\n", text)


def read_step(file: Path, step: int) -> dict[str, float]:
    """The metrics of one step in verl's metrics file; empty if it has none of that step.

    Raises:
        UserError: the file cannot be read.
    """
    with reading(file), as_user_error(ValueError, lambda _: f"{file} is not a metrics file of verl's logger `file`"):
        values = read_log(file).get(step, {})
    return {key: value for key, value in values.items() if isinstance(value, int | float)}


def _front_matter(address: str | None) -> dict[str, Any]:
    """What the card in a local base model's folder knows; a base that was trained here has its own base."""
    import yaml
    from huggingface_hub import metadata_load

    if not address or _hub_id(address):
        return {}
    try:
        metadata = metadata_load(Path(address).expanduser() / CARD_FILE)
    except (OSError, ValueError, yaml.YAMLError):  # no card, or somebody else's file
        return {}
    return {key: metadata[key] for key in ("base_model", "license") if metadata and isinstance(metadata.get(key), str)}


def _datasets(config: Mapping[str, Any]) -> list[str]:
    files = config.get("data.train_files")
    names = [files] if isinstance(files, str) else list(files or [])
    return list(dict.fromkeys(hub for name in names for part, hub in DATASETS.items() if part in str(name)))


def _shown(address: str | None) -> str | None:
    """A model's hub id, or the last part of its folder."""
    return address if not address or _hub_id(address) else without_paths(Path(address).name)


def _hub_id(address: str | None) -> str | None:
    """A model's id on the hub; None for a folder of this machine."""
    is_id = address and _HUB_ID.fullmatch(address) and not Path(address).exists()
    return address if is_id else None
