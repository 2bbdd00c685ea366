"""The report's pictures: Figures 1 and 3, accuracy and call rate by benchmark, calls by position and by length.

Names stand in legends outside the axes or on an axis of their own, so that none lies on another.
"""

from __future__ import annotations

import textwrap
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from relay_verl.pictures import RELAY, STUDENT, dress
from relay_verl.recipes.paper import find_row, paper
from relay_verl.report.colours import colours_of, kind_of
from relay_verl.report.comparison import Line, can_call, estimate_of, measure_of, name_of
from relay_verl.report.document import Picture
from relay_verl.report.drawing import CARD, INK, SOFT, draw
from relay_verl.report.groups import Group, Groups
from relay_verl.report.random_router import our_comparison, paper_comparison
from relay_verl.report.statistics import Estimate, call_rate, estimate
from relay_verl.traces.words import TEACHER_ALONE, natural_policies
from relay_verl.types import CallOutcome

MARKERS = "osD^vP*X<>h"


def router_figure(groups: Groups, size: str) -> Picture | None:
    """Figure 1: accuracy against the teacher's share of the tokens; None if there is nothing to draw."""
    facts = paper().sizes[size]
    average = facts.average
    rows = [row for row in paper().rows.values() if row.size == size and not row.method.startswith(("fixed_", "no_"))]
    rows += [] if facts.teacher in [row.name for row in rows] else [find_row(facts.teacher)]
    points: list[tuple[str, float, float, Estimate | None]] = []  # label, share and accuracy in percent, ours
    kinds: dict[str, str] = {}
    for row in rows:
        kinds[row.title] = kind_of(row.method, natural_policies(row.method)[0])
        published = paper().find("Table 1", row.name)
        if published:
            points.append((f"{row.title} (paper)", published.get("call_ratio", 0.0), published["average"], None))
        group = groups.find(row.name)
        if group and (made := estimate_of(group, average)):
            points.append((row.title, _share_of(group), 100 * made.value, made))
    for group in groups.of_size(size):
        if group.policy.startswith(("router_", "random_")) and (made := estimate_of(group, average)):
            points.append((group.words, _share_of(group), 100 * made.value, made))
            kinds[group.words] = "other"
    if not points:
        return None

    def paint(figure: Figure) -> None:
        axis = figure.subplots()
        dress(axis, x="average call ratio (%), linear below 1", y="average accuracy (%)")
        shares = np.concatenate([np.linspace(0, 1, 20), np.geomspace(1, 100, 60)])
        for name, compared, colour in (
            ("paper", paper_comparison(size), SOFT),
            ("ours", our_comparison(groups, size), STUDENT),
        ):
            if compared is None:
                continue
            line = [100 * compared.router_at(share / 100) for share in shares]
            axis.plot(shares, line, "--", color=colour, linewidth=1.2, label=f"random router ({name})")
            marked = [(compared.ratio, "as large a share")]
            marked += [(compared.matched_p, "as accurate")] if compared.matched_p else []
            for p, why in marked:
                axis.plot(
                    100 * p,
                    100 * compared.router_at(p),
                    "|" if why == "as accurate" else "x",
                    color=colour,
                    markersize=10,
                    markeredgewidth=1.8,
                    linestyle="none",
                    label=f"router {why} ({name})",
                )
        names = list(dict.fromkeys(label.removesuffix(" (paper)") for label, *_ in points))
        colours = colours_of([kinds[name] for name in names])
        for label, share, accuracy, made in points:
            number = names.index(label.removesuffix(" (paper)"))
            share = share or 0.04 * number  # those that never call stand side by side
            style: dict[str, Any] = {
                "color": colours[number],
                "marker": MARKERS[number % len(MARKERS)],
            }
            if made is None:
                axis.plot(share, accuracy, markerfacecolor=CARD, markersize=7, linestyle="none", label=label, **style)
            else:
                error_bar(axis, share, made, label=label, markersize=7, **style)
        axis.set_xscale("symlog", linthresh=1.0, linscale=0.6)
        axis.set_xlim(-0.15, 130)
        axis.set_xticks([0, 0.5, 1, 10, 100], labels=["0", "0.5", "1", "10", "100"])
        axis.minorticks_off()
        figure.legend(loc="outside lower center", ncols=2, fontsize=8)

    num_lines = len(points) // 2 + 3
    title = f"Figure 1: accuracy against cost, {facts.title}"
    note = "Hollow: the paper's; filled: ours, with" if facts.is_in_paper else "Ours, with"
    note += " 95% intervals. The random router's line is linear in its share."
    note += " Students that never call stand side by side at 0."
    svg = draw(paint, size=(7.2, 4.0 + 0.17 * num_lines))
    is_measured = any(made is not None for *_, made in points)
    return Picture(f"figure_1_{file_name(size)}", title, svg, note, is_measured)


def teachers_figure(lines: Sequence[Line], size: str) -> Picture | None:
    """Figure 3: accuracy under each teacher; None if nothing is known."""
    facts = paper().sizes[size]
    measure = facts.average
    bars = [(line.label, line.theirs.get(measure), line.ours and estimate_of(line.ours, measure)) for line in lines]
    bars = [bar for bar in bars if bar[1] is not None or bar[2] is not None]
    if not bars:
        return None

    def paint(figure: Figure) -> None:
        axis = figure.subplots()
        dress(axis, y="average accuracy (%)", x="teacher at inference")
        is_both = any(theirs is not None for _, theirs, _ in bars)
        for x, (_, theirs, ours) in enumerate(bars):
            if theirs is not None:
                axis.bar(x - 0.18, theirs, 0.32, facecolor="none", edgecolor=INK, linewidth=1.1)
            if ours:
                axis.bar(x + (0.18 if is_both else 0), 100 * ours.value, 0.32, color=RELAY)
                error_bar(axis, x + (0.18 if is_both else 0), ours, color=INK, marker="none")
        axis.set_xticks(range(len(bars)), [_wrap(label) for label, *_ in bars])
        axis.set_xlim(-0.6, max(len(bars), 3) - 0.4)

    title = f"Figure 3: other teachers, {facts.title}"
    note = (
        "Outlined: the paper's; filled: ours, with 95% intervals." if facts.is_in_paper else "Ours, with 95% intervals."
    )
    svg = draw(paint, size=(7.2, 3.4))
    return Picture(f"figure_3_{file_name(size)}", title, svg, note, any(ours is not None for *_, ours in bars))


def benchmarks_figure(groups: Groups, size: str) -> Picture | None:
    """Accuracy and call rate by benchmark of every measured row; None if none is."""
    shown = _trained(groups, size)
    if not shown:
        return None
    benchmarks = list(dict.fromkeys(name for group in shown for name in group.benchmarks))

    def paint(figure: Figure) -> None:
        axes = figure.subplots(2, 1, sharex=True)
        for axis, title in zip(axes, ("Accuracy", "Call rate"), strict=True):
            dress(axis, title, y="responses (%)")
        width = 0.84 / len(shown)
        colours = _colours(shown)
        for number, group in enumerate(shown):
            colour = colours[number]
            hatch = "///" if colour in colours[:number] else None
            places = np.arange(len(benchmarks)) - 0.42 + width * (number + 0.5)
            for axis, kind in zip(axes, ("accuracy", "rate"), strict=True):
                for place, benchmark in zip(places, benchmarks, strict=True):
                    made = _by_benchmark(group, benchmark, kind)
                    if made is None:
                        continue
                    axis.bar(
                        place, 100 * made.value, 0.9 * width, color=colour, hatch=hatch, edgecolor=CARD, linewidth=0
                    )
                    error_bar(axis, place, made, color=INK, marker="none", linewidth=0.8)
            axes[0].bar(0, 0, color=colour, hatch=hatch, label=_label(group))
        axes[0].set_ylim(0, 102)
        axes[1].set_ylim(bottom=0)
        for axis in axes:
            axis.tick_params(axis="x", length=0)
        axes[1].set_xticks(range(len(benchmarks)), [_wrap(name_of(name)) for name in benchmarks])
        figure.legend(loc="outside lower center", ncols=2, fontsize=8)

    title = f"Accuracy and call rate by benchmark, {paper().sizes[size].title}"
    svg = draw(paint, size=(8.4, 5.2 + 0.09 * len(shown)))
    return Picture(f"benchmarks_{file_name(size)}", title, svg, "Bars with 95% intervals.")


def calls_figure(groups: Groups, size: str) -> Picture | None:
    """Where in a response calls stand and how long they are; None if no one called."""
    callers = {group: _label(group) for group in _trained(groups, size) if can_call(group) and len(served_calls(group))}
    if not callers:
        return None
    return calls_picture(
        callers, f"calls_{file_name(size)}", f"Calls by position and by length, {paper().sizes[size].title}"
    )


def calls_picture(callers: Mapping[Group, str], name: str, title: str) -> Picture:
    """The same of any conditions.

    Args:
        callers: what the picture calls each of them; every one has served calls.
        name, title: the picture's.
    """
    served = {group: served_calls(group) for group in callers}

    def paint(figure: Figure) -> None:
        axes = figure.subplots(1, 3, sharey=True)
        dress(axes[0], "By position", x="place in the response (%)")
        dress(axes[1], "By length requested", x="tokens")
        dress(axes[2], "By length delivered", x="tokens")
        colours = _colours(list(served))
        longest = max(2.0, *(calls[:, 1:3].max() for calls in served.values()))
        lengths = np.geomspace(1, longest * 1.0001, min(16, 2 + int(longest)))
        for column, (axis, edges) in enumerate(zip(axes, (np.linspace(0, 100, 21), lengths, lengths), strict=True)):
            values = [np.clip(calls[:, column], edges[0], edges[-1]) for calls in served.values()]
            shares = [np.histogram(value, edges)[0] / len(value) for value in values]
            peak = max(share.max() for share in shares)
            for number, share in enumerate(shares):
                base = len(shares) - 1 - number
                axis.stairs(
                    base + 0.85 * share / peak, edges, baseline=base, fill=True, color=colours[number], linewidth=0
                )
            axis.set_ylim(0, len(shares))
        axes[0].set_yticks([len(served) - 1 - i for i in range(len(served))], [_wrap(callers[g], 18) for g in served])
        for label in axes[0].get_yticklabels():
            label.set_verticalalignment("bottom")
        for axis in axes[1:]:
            axis.set_xscale("log")
            axis.xaxis.set_major_formatter(lambda value, _: f"{value:g}")
            axis.minorticks_off()
            axis.tick_params(axis="y", length=0)
        axes[0].set_xlim(0, 100)

    svg = draw(paint, size=(8.4, 1.3 + 0.42 * len(served)))
    note = "Shares of each row's served calls, one scale a panel; lengths in logarithmic bins."
    return Picture(name, title, svg, note)


def _colours(shown: Sequence[Group]) -> list[str]:
    return colours_of([kind_of(group.method, group.policy) for group in shown])


def _trained(groups: Groups, size: str) -> list[Group]:
    """The measured rows of a size, each under its own policy and teacher."""
    candidates = [groups.find(row.name) for row in paper().rows.values() if row.size == size]
    return [group for group in candidates if group]


def _by_benchmark(group: Group, benchmark: str, kind: str) -> Estimate | None:
    if benchmark not in group.benchmarks:
        return None
    if kind == "accuracy":
        return estimate_of(group, benchmark)
    return estimate(call_rate(group.records, [benchmark])) if can_call(group) else None


def served_calls(group: Group) -> np.ndarray:
    """Place in the response (%), tokens requested, tokens delivered and tokens before it of every served call:
    [num_calls, 4]."""
    calls = [
        (
            100 * call["position"] / max(1, record.num_tokens),
            call["num_requested"],
            call["num_delivered"],
            call["position"],
        )
        for records in group.records
        for record in records
        for call in record.calls
        if call["outcome"] == CallOutcome.SERVED
    ]
    return np.array(calls, dtype=float).reshape(len(calls), 4)


def _share_of(group: Group) -> float:
    """The teacher's share of the tokens in percent, averaged over benchmarks as the accuracy is."""
    if group.policy == TEACHER_ALONE or group.method == "teacher":
        return 100.0
    measured = measure_of(group, "call_ratio")
    return 100 * measured.value if measured else 0.0


def error_bar(axis: Axes, x: float, made: Estimate, **style: Any) -> None:
    """The value with its interval, in percent."""
    reach = [[100 * max(0.0, made.value - made.low)], [100 * max(0.0, made.high - made.value)]]
    axis.errorbar(x, 100 * made.value, yerr=reach, linestyle="none", elinewidth=1.0, capsize=2.0, **style)


def _label(group: Group) -> str:
    return (
        group.row_facts.title if group.row_facts and group.size_facts and group.size_facts.is_in_paper else group.words
    )


def _wrap(label: str, width: int = 14) -> str:
    return textwrap.fill(label, width)


def file_name(size: str) -> str:
    """A size in the name of a picture's file."""
    return size.replace(".", "_")
