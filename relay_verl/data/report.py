"""What the generators made, beside the law it should follow: a few lines and a picture."""

from __future__ import annotations

import io
from collections import Counter
from collections.abc import Iterator, Sequence
from fractions import Fraction
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.ticker import PercentFormatter

from relay_verl.config import read_settings
from relay_verl.data.solvability import COLUMN, PassCount
from relay_verl.data.warmup import length_law
from relay_verl.files import replace_file

DRAWN, LAW = "#4878a8", "#c44e52"
NUM_BINS = 20


def report_warmup(path: Path, config: Any) -> str:
    """Lines on the warm-up data at `path`, and its picture `PATH.png`."""
    relay = read_settings(config.relay)
    settings = relay.warmup
    num_rows = num_finished = num_broken = 0
    per_row: Counter[int] = Counter()
    asked: Counter[int] = Counter()
    expected: Counter[int] = Counter()  # of `asked`, from the exact law at every command's place
    places, even = np.zeros(NUM_BINS), np.zeros(NUM_BINS)
    laws: dict[int, dict[int, Fraction]] = {}
    columns = ["num_own_tokens", "calls", "is_finished", "breaks_box"]
    for row in _rows(path, columns):
        num_rows += 1
        num_broken += row["breaks_box"]
        num_finished += row["is_finished"]
        per_row[len(row["calls"])] += 1
        for call in row["calls"]:
            left = row["num_own_tokens"] - call["position"]
            asked[call["num_tokens"]] += 1
            bins = np.arange(row["num_own_tokens"]) * NUM_BINS // row["num_own_tokens"]
            places[bins[call["position"]]] += 1
            even += np.bincount(bins, minlength=NUM_BINS) / len(bins)
            if left not in laws:
                laws[left] = length_law(settings.max_exponent, left, relay.written_length)
            for number, share in laws[left].items():
                expected[number] += float(share)  # type: ignore[assignment]
    figure = Figure(figsize=(13, 3.8), layout="constrained")
    counts, spots, lengths = figure.subplots(1, 3)
    weights = np.asarray(settings.call_weights) / sum(settings.call_weights)
    _compare(
        counts, [per_row[k] / max(1, num_rows) for k in range(len(weights))], weights, "Commands in a sample", "samples"
    )
    counts.set_xticks(range(len(weights)))
    num_calls = sum(asked.values())
    _compare(spots, places / max(1, num_calls), even / max(1, num_calls), "Place of a command in its response")
    spots.set_xticks([-0.5, NUM_BINS / 2 - 0.5, NUM_BINS - 0.5], ["start", "middle", "end"])
    edges = np.unique(np.geomspace(1, max([10, *asked]) + 1, 24).astype(int))
    drawn, law = (
        np.histogram(list(c), edges, weights=list(c.values()))[0] / max(1, num_calls) for c in (asked, expected)
    )
    _compare(lengths, drawn, law, "Tokens a command asks for")
    ticks = range(0, len(edges) - 1, max(1, len(edges) // 8))
    lengths.set_xticks(list(ticks), [str(edges[i]) for i in ticks])
    lengths.legend(frameon=False)
    figure.suptitle(f"Warm-up data: {num_calls} commands in {num_rows} samples, beside the law they are drawn from")
    _save(figure, path)
    return (
        f"{path}: {num_rows} samples, {num_calls} commands; in {num_broken} samples a command stands inside the "
        f"answer's \\boxed{{}}; {num_rows - num_finished} samples ran into the length limit and are left out of "
        f"training; picture: {path}.png"
    )


def report_filter(path: Path, config: Any) -> str:
    """Lines on the pass rates at `path`, and their picture `PATH.png`."""
    threshold = read_settings(config.relay).filter.min_pass_rate
    passes: Counter[float] = Counter()
    num_rows = num_kept = num_open = num_asked = num_full = num_tokens = 0
    for row in _rows(path, [COLUMN]):
        count = PassCount.of(row[COLUMN])
        verdict = count.is_solvable(threshold)
        num_rows += 1
        num_kept += verdict is True
        num_open += verdict is None
        num_asked += count.num_done
        num_full += count.num_samples
        num_tokens += row[COLUMN]["num_tokens"]
        passes[min(9, int(count.pass_rate * 10))] += 1
    figure = Figure(figsize=(6, 3.8), layout="constrained")
    axes = figure.subplots()
    axes.bar([i + 0.5 for i in range(10)], [passes[i] / max(1, num_rows) for i in range(10)], width=0.94, color=DRAWN)
    axes.axvline(threshold * 10, color=LAW, linewidth=2, label=f"kept from {threshold:g} on: {num_kept} of {num_rows}")
    axes.set_xticks(range(0, 11, 2), [f"{i / 10:g}" for i in range(0, 11, 2)])
    _style(axes, "Pass rate of the teacher", "queries")
    axes.legend(frameon=False)
    _save(figure, path)
    saved = f"; stopped early: {num_asked} of {num_full} samples" if num_asked < num_full else ""
    still = f"; {num_open} queries are open at this threshold" if num_open else ""
    return (
        f"{path}: {num_kept} of {num_rows} queries have a pass rate of at least {threshold:g}; {num_asked} samples, "
        f"{num_tokens} tokens{saved}{still}; picture: {path}.png"
    )


def _rows(path: Path, columns: Sequence[str]) -> Iterator[dict[str, Any]]:
    with pq.ParquetFile(path) as file:
        for batch in file.iter_batches(columns=list(columns)):
            yield from batch.to_pylist()


def _compare(axes: Axes, drawn: Any, law: Any, title: str, of: str = "commands") -> None:
    axes.bar(range(len(drawn)), drawn, width=0.9, color=DRAWN, label="drawn")
    axes.step(np.arange(-0.5, len(law) + 0.5), [*law, law[-1]], where="post", color=LAW, linewidth=1.5, label="law")
    _style(axes, title, of)


def _style(axes: Axes, title: str, of: str) -> None:
    axes.set_title(title, loc="left")
    axes.set_ylabel(f"share of {of}")
    axes.yaxis.set_major_formatter(PercentFormatter(1.0))
    axes.spines[["top", "right"]].set_visible(False)


def _save(figure: Figure, path: Path) -> None:
    picture = io.BytesIO()
    FigureCanvasAgg(figure).print_png(picture)
    replace_file(path.with_name(f"{path.name}.png"), picture.getvalue())
