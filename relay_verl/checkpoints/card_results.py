"""Evaluation results on a model card: the table, and the hub's `model-index`, from the `summary.json` of results."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from relay_verl.errors import UserError, as_user_error

SUMMARY = "summary.json"
"""As in `relay_verl.traces.results`, which stands above this."""


@dataclass(frozen=True)
class Results:
    """Summaries of evaluations of one model."""

    summaries: Sequence[Mapping[str, Any]]
    """Each as `relay_verl.report.summary` writes it."""

    @classmethod
    def read(cls, folders: Sequence[Path]) -> Results:
        """The summaries at or below results folders, by path.

        Raises:
            UserError: a folder has none, or one that cannot be read.
        """
        summaries = []
        for folder in folders:
            files = sorted(Path(folder).rglob(SUMMARY))
            if not files:
                raise UserError(f"--results: {folder} has no {SUMMARY}; give a results folder of `relay-verl eval`")
            for file in files:
                summaries.append(_read_summary(file))
        return cls(summaries)

    @property
    def benchmark(self) -> str | None:
        """The first benchmark; None without results."""
        return next((name for summary in self.summaries for name in summary["benchmarks"]), None)

    @property
    def rows(self) -> list[tuple[str, ...]]:
        """Cells of the card's table: a row for each benchmark and condition."""
        return [
            (name, _condition(summary), *(_percent(numbers, key) for key in _SHOWN))
            for summary in self.summaries
            for name, numbers in summary["benchmarks"].items()
        ]

    def index(self, model: str) -> dict[str, Any]:
        """`ModelCardData`'s arguments for the hub's index of results; empty without results."""
        from huggingface_hub import EvalResult

        if not self.summaries:
            return {}
        return {
            "model_name": model,
            "eval_results": [
                EvalResult(
                    task_type="text-generation",
                    dataset_type=name,
                    dataset_name=name,
                    metric_type="accuracy",
                    metric_name=f"accuracy (%), {_condition(summary)}",
                    metric_value=round(float(numbers["accuracy_percent"]), 2),
                )
                for summary in self.summaries
                for name, numbers in summary["benchmarks"].items()
            ],
        }


_SHOWN = ("accuracy_percent", "call_rate_percent", "pooled_call_ratio_percent")


def _read_summary(file: Path) -> Mapping[str, Any]:
    with as_user_error(
        (OSError, ValueError, KeyError, TypeError, AttributeError),
        lambda error: f"--results: {file} is not a summary of results ({error!r})",
    ):
        summary: Mapping[str, Any] = json.loads(file.read_bytes())
        for numbers in summary["benchmarks"].values():
            float(numbers["accuracy_percent"])
    return summary


def _condition(summary: Mapping[str, Any]) -> str:
    return str(summary.get("in_words") or summary.get("condition") or summary.get("policy") or "").replace("|", "/")


def _percent(numbers: Mapping[str, Any], key: str) -> str:
    value, low, high = (numbers.get(f"{key}{end}") for end in ("", "_low", "_high"))
    if value is None:
        return "–"
    return f"{value:.2f}" if low is None or low == high else f"{value:.2f} ({low:.2f}–{high:.2f})"
