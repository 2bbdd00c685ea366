"""What the generators made next to the law it should follow: a few lines, and a picture as a by-product."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence
from fractions import Fraction
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq
from matplotlib.axes import Axes
from matplotlib.ticker import PercentFormatter

from relay_verl.config import FilterSettings, RelaySettings
from relay_verl.data.pass_counts import COLUMN, PassCount
from relay_verl.data.warmup import length_law
from relay_verl.jobs.byproducts import by_product
from relay_verl.pictures import INK, STUDENT, TEACHER, dress, new_figure, save

NUM_BINS = 20


def report_warmup(path: Path, relay: RelaySettings) -> str:
    """Lines on the warm-up data at `path`, and its picture `PATH.png`."""
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
    num_calls, picture = sum(asked.values()), picture_of(path)
    title = f"Warm-up data {path.name}: {num_calls:,} commands in {num_rows:,} samples"
    with by_product(f"the picture {picture}"), new_figure(13, 4.0, title) as figure:
        counts, spots, lengths = figure.subplots(1, 3)
        weights = np.asarray(settings.call_weights) / sum(settings.call_weights)
        shares = [per_row[k] / max(1, num_rows) for k in range(len(weights))]
        _compare(counts, shares, weights, "Commands in a sample", "number of commands", "samples")
        counts.set_xticks(range(len(weights)))
        spread, evenly = places / max(1, num_calls), even / max(1, num_calls)
        _compare(spots, spread, evenly, "Where a command stands", "place in the response")
        spots.set_xticks([-0.5, NUM_BINS / 2 - 0.5, NUM_BINS - 0.5], ["start", "middle", "end"])
        edges = np.unique(np.geomspace(1, max([10, *asked]) + 1, 24).astype(int))
        drawn, law = (
            np.histogram(list(c), edges, weights=list(c.values()))[0] / max(1, num_calls) for c in (asked, expected)
        )
        _compare(lengths, drawn, law, "Length of a call", "tokens that the command asks for, bins that widen")
        ticks = _decades(edges)
        lengths.set_xticks([place for place, _ in ticks], [str(number) for _, number in ticks])
        figure.legend(*lengths.get_legend_handles_labels(), loc="outside lower right", ncols=2)
        save(figure, picture)
    return (
        f"{path}: {num_rows} samples, {num_calls} commands; in {num_broken} samples a command stands inside the "
        f"answer's \\boxed{{}}; {num_rows - num_finished} samples ran into the length limit and are left out of "
        f"training{_tell_picture(picture)}"
    )


def report_filter(path: Path, settings: FilterSettings) -> str:
    """Lines on the pass rates at `path`, and their picture `PATH.png`."""
    threshold = settings.min_pass_rate
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
    picture = picture_of(path)
    title = f"Filtered data {path.name}: {num_kept:,} of {num_rows:,} questions kept"
    with by_product(f"the picture {picture}"), new_figure(6.6, 4.0, title) as figure:
        axes = figure.subplots()
        # what is kept has the teacher's colour in full: the bins from the threshold on
        colours = [TEACHER if (i + 1) / 10 > threshold else f"{TEACHER}66" for i in range(10)]
        axes.bar([i + 0.5 for i in range(10)], [passes[i] / max(1, num_rows) for i in range(10)], 0.94, color=colours)
        label = f"threshold {threshold:g}: a question with a lower pass rate is left out"
        axes.axvline(threshold * 10, color=INK, linewidth=1.4, label=label)
        axes.set_xticks(range(0, 11, 2), [f"{i / 10:g}" for i in range(0, 11, 2)])
        dress(axes, x="pass rate: share of the teacher's samples that are right", y="share of questions")
        axes.yaxis.set_major_formatter(PercentFormatter(1.0))
        figure.legend(loc="outside lower center")
        save(figure, picture)
    saved = f"; stopped early: {num_asked} of {num_full} samples" if num_asked < num_full else ""
    still = f"; {num_open} queries are open at this threshold" if num_open else ""
    return (
        f"{path}: {num_kept} of {num_rows} queries have a pass rate of at least {threshold:g}; {num_asked} samples, "
        f"{num_tokens} tokens{saved}{still}{_tell_picture(picture)}"
    )


def _rows(path: Path, columns: Sequence[str]) -> Iterator[dict[str, Any]]:
    with pq.ParquetFile(path) as file:
        for batch in file.iter_batches(columns=list(columns)):
            yield from batch.to_pylist()


def picture_of(path: Path) -> Path:
    """Where the picture of a data file is."""
    return path.with_name(f"{path.name}.png")


def _tell_picture(picture: Path) -> str:
    return f"; picture: {picture}" if picture.is_file() else ""


def _decades(edges: np.ndarray) -> list[tuple[int, int]]:
    """Places and numbers of the ticks under bins with these edges: those nearest to 1, 3, 10, 30, 100 and so on."""
    rounds = [number * 10**power for power in range(8) for number in (1, 3) if number * 10**power < edges[-1]]
    places = [int(np.argmin(np.abs(np.log(edges[:-1] / number)))) for number in rounds]
    return [(place, int(edges[place])) for place in dict.fromkeys(places)]


def _compare(axes: Axes, drawn: Any, law: Any, title: str, x: str, of: str = "commands") -> None:
    """What was drawn as bars in the student's colour, since it is the student that calls, and its law as a line."""
    axes.bar(range(len(drawn)), drawn, width=0.9, color=STUDENT, alpha=0.75, label="in the data")
    steps = np.arange(-0.5, len(law) + 0.5)
    axes.step(steps, [*law, law[-1]], where="post", color=INK, linewidth=1.4, label="law that it is drawn from")
    dress(axes, title, x=x, y=f"share of {of}")
    axes.yaxis.set_major_formatter(PercentFormatter(1.0))
