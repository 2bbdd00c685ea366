"""The picture of `relay-verl bench scale`: throughput, splits, busy time, and the barrier on skewed lengths."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from matplotlib.axes import Axes
from matplotlib.ticker import FixedLocator, NullLocator, PercentFormatter, StrMethodFormatter

from relay_verl.bench.scale_report import Pair, ScaleStudy
from relay_verl.pictures import NEITHER, RELAY, SOFT, STUDENT, TEACHER, dress, new_figure, save


def draw_scale(study: ScaleStudy, path: Path) -> None:
    """Write the picture, a PNG or an SVG by the suffix of `path`."""
    num_gpus = study.by_split[0].ours.split.num_gpus
    with new_figure(10, 7.4, "Relayed rollouts: a simulation") as figure:
        figure.supxlabel(f"Curves: {study.origin}", x=0.01, ha="left", color=SOFT, fontsize=8.5)
        (by_gpus, by_split), (busy, by_sigma) = figure.subplots(2, 2)

        by_gpus.set_xscale("log", base=2)
        by_gpus.set_yscale("log")
        sizes = [pair.ours.split.num_gpus for pair in study.by_gpus]
        _draw_ways(by_gpus, sizes, study.by_gpus)
        _mark(by_gpus, sizes)
        dress(by_gpus, "Throughput of the chosen split", x="GPUs, students' and teachers'", y="tokens a second")

        teacher_gpus = [pair.ours.split.num_teachers * study.teacher_gpus_per_replica for pair in study.by_split]
        _draw_ways(by_split, teacher_gpus, study.by_split)
        _mark(by_split, teacher_gpus)
        by_split.set_ylim(bottom=0)
        dress(by_split, f"How to divide {num_gpus} GPUs", x="teacher GPUs", y="tokens a second")

        for name, colour, line, values in (
            ("a student replica is busy", STUDENT, "-", [pair.ours.student_busy for pair in study.by_split]),
            ("a teacher replica is busy", TEACHER, "-", [pair.ours.teacher_busy for pair in study.by_split]),
            ("teacher's share of busy time", TEACHER, "--", [pair.ours.teacher_share for pair in study.by_split]),
        ):
            busy.plot(teacher_gpus, values, line, color=colour, marker="o", markersize=4, label=name)
        _mark(busy, teacher_gpus)
        busy.set_ylim(0, 1.35)  # the legend stands above 100%
        busy.set_yticks([0, 0.2, 0.4, 0.6, 0.8, 1])
        busy.yaxis.set_major_formatter(PercentFormatter(1.0))
        busy.legend(loc="upper left")
        dress(busy, f"Busy time on {num_gpus} GPUs without a barrier", x="teacher GPUs", y="share of time")

        sigmas, pairs = zip(*study.by_sigma, strict=True)
        _draw_ways(by_sigma, sigmas, pairs)
        for sigma, pair in study.by_sigma:
            place = (sigma, pair.ours.tokens_per_s)
            by_sigma.annotate(f"{pair.gain:.1f}×", place, (4, 4), textcoords="offset points")
        by_sigma.set_xticks(sigmas)
        by_sigma.margins(x=0.1)
        by_sigma.set_ylim(0, 1.2 * max(pair.ours.tokens_per_s for pair in pairs))
        title = f"Skewed lengths of one mean, {num_gpus} GPUs"
        dress(by_sigma, title, x="sigma of the lengths' log-normal law", y="tokens a second")
        save(figure, path)


def _draw_ways(axis: Axes, x: Sequence[float], pairs: Sequence[Pair]) -> None:
    for name, colour, values in (
        ("ours: each continues by itself", RELAY, [pair.ours.tokens_per_s for pair in pairs]),
        ("barrier: all wait for all", NEITHER, [pair.barrier.tokens_per_s for pair in pairs]),
    ):
        axis.plot(x, values, color=colour, marker="o", markersize=4, label=name)
    axis.yaxis.set_major_formatter(StrMethodFormatter("{x:,.0f}"))
    axis.legend()


def _mark(axis: Axes, numbers: Sequence[int]) -> None:
    """Ticks at these numbers and nowhere else."""
    axis.xaxis.set_major_locator(FixedLocator(numbers))
    axis.xaxis.set_minor_locator(NullLocator())
    axis.xaxis.set_major_formatter(StrMethodFormatter("{x:,.0f}"))
