"""The page on what of RelayLLM reproduces: the paper, the authors' release, every public attempt, and ours.

Invariant: a number is one that its source prints, or one of ours with its interval; where nothing was measured the cell
says so. Means over benchmarks of others' numbers are computed where a source has all of them, and only there.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from matplotlib.figure import Figure

from relay_verl.files import replace_file
from relay_verl.pictures import COLOURS, dress
from relay_verl.recipes.attempts import Attempt, AttemptSource, attempts_at, sources
from relay_verl.recipes.departures import departures
from relay_verl.recipes.paper import Entry, find_row, paper
from relay_verl.report.cell_commands import cell_commands
from relay_verl.report.comparison import NONE, NOT_MEASURED, estimate_of, measure_of, name_of
from relay_verl.report.discrepancies import discrepancies_section
from relay_verl.report.document import Document, Picture, Section, Table
from relay_verl.report.drawing import CARD, INK, draw
from relay_verl.report.figures import MARKERS
from relay_verl.report.groups import Groups
from relay_verl.report.page_files import to_csv, write_page
from relay_verl.report.statistics import Estimate, difference
from relay_verl.report.tables import paper_tables, teachers_table

PAGE = "reproduction"
"""Name of the page's files, without the suffix."""
PAPER, OURS = "paper", "ours"
AVERAGE = "average"


def write_reproduction(groups: Groups, out: Path) -> str:
    """Write the page and its numbers as CSV; returns it as Markdown.

    Args:
        groups: ours; may be empty.
        out: the page's folder; it is made.
    """
    replace_file(out / f"{PAGE}.csv", to_csv(list(number_rows(groups))).encode())
    return write_page(reproduction_document(groups), out, PAGE)


def reproduction_document(groups: Groups) -> Document:
    """The page."""
    sizes = paper().students(is_in_paper=True)
    num_ours = sum(len(records) for group in groups.groups for records in group.records)
    note = (
        "The numbers of the paper (arXiv 2601.05167) next to those of every public attempt that the issues of the "
        "authors' repository report, and to ours. The release prints the paper's averages and no others. "
        + (f"Ours: {num_ours:,} responses, with 95% intervals." if num_ours else "Nothing of ours was measured yet.")
    )
    others = [
        teachers_table(groups, size.name, f"Figure 3: other teachers of {size.title} (%)")
        for size in sizes
        if any(entry.table == "Figure 3" and entry.row == f"{size.name}/relay" for entry in paper().entries)
    ]
    blocks = (gains_table(groups), averages_figure(groups))
    return Document(
        "What of RelayLLM reproduces",
        note,
        (
            Section("What a relay gains", tuple(block for block in blocks if block)),
            Section("Every cell", (*paper_tables(groups), *others)),
            Section("The attempts", (sources_table(),)),
            Section("What differs from the authors' release", (departures_table(),)),
            Section("How to fill each cell", (commands_table(),)),
            discrepancies_section(),
        ),
        _headlines(groups),
    )


# ---- gains ----


def gains_table(groups: Groups) -> Table:
    """Each trained row's average accuracy minus that of its base model, by whoever measured both in the same way."""
    rows: list[tuple[str, ...]] = []
    for row in paper().rows.values():
        base = f"{row.size}/base"
        if row.method in ("base", "teacher") or not paper().find("Table 1", row.name):
            continue
        lines = [(PAPER, _gain(paper().find("Table 1", row.name), paper().find("Table 1", base)), "")]
        for attempt in attempts_at(row.name):
            own_base = _by_same_hand(attempt, base)
            gain = _gain(attempt.values, own_base.values) if own_base else "base model not measured"
            lines.append((attempt.label, gain, ""))
        lines.append((OURS, *_our_gain(groups, row.name, base)))
        label = f"{row.size_title}, {row.title}"
        rows += [(label if number == 0 else "", *cells) for number, cells in enumerate(lines)]
    head = ("row", "by", "gain", "95% interval")
    note = (
        "Average accuracy over the six benchmarks of mathematics minus that of the base model, in percentage points, "
        "each by the same hand under the same conditions."
    )
    is_measured = any(groups.find(row) for row in paper().rows if paper().find("Table 1", row))
    title = "Gain over the base model, by who measured it"
    return Table(title, head, tuple(rows), num_labels=2, note=note, is_measured=is_measured)


def _by_same_hand(attempt: Attempt, row: str) -> Attempt | None:
    """Another row as the same source measured it in the same way."""
    return next((one for one in attempts_at(row) if (one.source, one.how) == (attempt.source, attempt.how)), None)


def _gain(trained: Mapping[str, float], base: Mapping[str, float]) -> str:
    return f"{trained[AVERAGE] - base[AVERAGE]:+.2f}" if AVERAGE in trained and AVERAGE in base else NONE


def _our_gain(groups: Groups, row: str, base: str) -> tuple[str, str]:
    gain = _our_difference(groups, row, base)
    if gain is None:
        return NOT_MEASURED, ""
    return f"{100 * gain.value:+.2f}", f"{100 * gain.low:+.2f} to {100 * gain.high:+.2f}"


def _our_difference(groups: Groups, row: str, base: str) -> Estimate | None:
    of, to = (measure_of(group, AVERAGE) if (group := groups.find(name)) else None for name in (row, base))
    return difference(of, to) if of and to else None


def averages_figure(groups: Groups) -> Picture | None:
    """The average accuracy of each row of Table 1, a mark for each who measured it."""
    names = [entry.row for entry in paper().entries if entry.table == "Table 1"]
    points: list[tuple[int, str, float, Estimate | None]] = []
    for place, name in enumerate(names):
        points.append((place, PAPER, paper().find("Table 1", name)[AVERAGE], None))
        points += [(place, one.label, one.values[AVERAGE], None) for one in attempts_at(name) if AVERAGE in one.values]
        group = groups.find(name)
        if group and (own := estimate_of(group, AVERAGE)):
            points.append((place, OURS, 100 * own.value, own))
    labels = list(dict.fromkeys(label for _, label, *_ in points))

    def paint(figure: Figure) -> None:
        axis = figure.subplots()
        dress(axis, x="average accuracy over six benchmarks (%)")
        axis.grid(visible=True, axis="both")
        for number, label in enumerate(labels):
            mine = [point for point in points if point[1] == label]
            style: dict[str, Any] = {"color": COLOURS[number % len(COLOURS)], "marker": MARKERS[number % len(MARKERS)]}
            if label == PAPER:
                style |= {"color": INK, "markerfacecolor": CARD}
            shift = 0.09 * (number - (len(labels) - 1) / 2)
            places = [-place - shift for place, *_ in mine]
            axis.plot([value for _, _, value, _ in mine], places, linestyle="none", markersize=6, label=label, **style)
            for place, (_, _, value, own) in zip(places, mine, strict=True):
                if own:
                    reach = [[value - 100 * own.low], [100 * own.high - value]]
                    axis.errorbar(value, place, xerr=reach, color=style["color"], capsize=2.0)
        titles = [f"{find_row(name).size_title}, {find_row(name).title}" for name in names]
        axis.set_yticks([-place for place in range(len(names))], titles)
        figure.legend(loc="outside lower center", ncols=3, fontsize=8)

    svg = draw(paint, size=(8.2, 1.4 + 0.38 * len(names)))
    note = "Hollow: the paper's. Only those who measured all six benchmarks have a mark; ours has a 95% interval."
    return Picture("reproduction_averages", "Average accuracy by who measured it", svg, note, bool(groups.groups))


def _headlines(groups: Groups) -> tuple[str, ...]:
    """What each who trained a relay says of its gain, a sentence for each size."""
    sentences = []
    for size in paper().students(is_in_paper=True):
        row, base = f"{size.name}/relay", f"{size.name}/base"
        parts = [f"the paper {_gain(paper().find('Table 1', row), paper().find('Table 1', base))}"]
        for attempt in attempts_at(row):
            own_base = _by_same_hand(attempt, base)
            parts += [f"{attempt.label} {_gain(attempt.values, own_base.values)}"] if own_base else []
        own, interval = _our_gain(groups, row, base)
        parts.append(f"ours {own}{f' ({interval})' if interval else ''}")
        sentences.append(f"{size.title}, gain of the difficulty-aware relay over its base model: {', '.join(parts)}.")
    return tuple(sentences)


# ---- what the numbers rest on ----


def sources_table() -> Table:
    """Every public attempt and its conditions, as far as its author says them."""
    head = ("attempt", "models", "chat template", "sampling", "verdicts", "says", "the authors answer")
    rows = tuple(
        (f"{one.name} ({one.date}), {one.url}", one.models, one.prompt, one.sampling, one.verdicts, *_said(one))
        for one in sources()
    )
    note = "Numbers of others stand as their authors print them; conditions that they do not give are not guessed."
    return Table("Conditions of the public attempts", head, rows, num_labels=len(head), note=note, is_measured=False)


def _said(source: AttemptSource) -> tuple[str, str]:
    return source.finding, source.answer


def departures_table() -> Table:
    """Every departure with its switch."""
    head = ("", "authors' release", "here", "as the release")
    rows = tuple(
        (one.what, *(_plain(text) for text in (one.release, one.here)), _plain(one.switch) or _reason(one.no_switch))
        for one in departures()
    )
    return Table("Departures and their switches", head, rows, num_labels=len(head), is_measured=False)


def _reason(text: str) -> str:
    return f"no switch, since {_plain(text)}" if text else NONE


def _plain(text: str) -> str:
    """Markdown's code without its marks: a table's cell is text."""
    return text.replace("`", "")


def commands_table() -> Table:
    """How each row is trained and measured."""
    head = ("row", "the release has", "train", "evaluate")
    rows = tuple((one.row, one.in_release or NONE, one.train or NONE, one.evaluate) for one in cell_commands())
    note = (
        "After the README's steps 1 to 3 (data, warm-up, filter); relay-verl export writes a trained student to out/. "
        "Results below one folder make one page: relay-verl reproduction results --out reproduction. The authors' "
        "checkpoint has folders of its own, since it is not a seed of ours. Figure 3 is the same evaluation with "
        "another --teacher."
    )
    return Table("Commands", head, rows, num_labels=len(head), note=note, is_measured=False)


# ---- numbers as data ----


def number_rows(groups: Groups) -> Iterator[dict[str, Any]]:
    """A line for each number of the paper, of others and of ours; ours without a value where nothing was measured."""
    for entry in paper().entries:
        place = {"table": entry.table, "row": entry.row, "policy": entry.policy or "", "teacher": entry.teacher or ""}
        for measure, value in entry.values.items():
            facts = {**place, "measure": name_of(measure)}
            yield {**facts, "by": PAPER, "percent": value, "low": "", "high": "", "source": "arXiv 2601.05167"}
            if entry.table == "Table 1":
                for one in attempts_at(entry.row):
                    if measure in one.values:
                        number = {"percent": round(one.values[measure], 4), "low": "", "high": ""}
                        yield {**facts, "by": one.label, **number, "source": one.source.url}
            own = _our_estimate(groups, entry, measure)
            ours = [round(100 * number, 4) for number in (own.value, own.low, own.high)] if own else ["", "", ""]
            yield {**facts, "by": OURS, **dict(zip(("percent", "low", "high"), ours, strict=True)), "source": ""}


def _our_estimate(groups: Groups, entry: Entry, measure: str) -> Estimate | None:
    group = groups.find(entry.row, entry.policy, entry.teacher)
    is_same = group is not None and (entry.teacher is None or group.teacher == entry.teacher)
    return estimate_of(group, measure) if group is not None and is_same else None
