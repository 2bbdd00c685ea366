"""Tables 1 to 6 and Figure 3's numbers, for the paper's models and for pairs of our own."""

from __future__ import annotations

import re

from relay_verl.recipes.paper import Size, find_row, paper
from relay_verl.report.comparison import HARMONIC, RATIOS, Line, compare, measure_of, table_line
from relay_verl.report.document import Table
from relay_verl.report.groups import Groups
from relay_verl.report.harmonic import NUM_BBEH_TASKS
from relay_verl.traces.words import TEACHER_FREE

_METHODS = ("base", "grpo", "citer", "relay_simple", "relay")
_ABLATIONS = ("relay", "no_filter", "no_independence", "no_exploration")
_GENERAL = ("bbeh", "mmlu-pro", "supergpqa")
_RATIO_NOTE = (
    "Avg. call ratio, our reading of the paper's column: the teacher's tokens over all tokens of each benchmark, "
    "averaged over benchmarks. Pooled: the same over the tokens of all benchmarks together."
)


def paper_tables(groups: Groups) -> tuple[Table, ...]:
    """Tables 1 to 6 of the paper's models."""
    math = (*paper().groups["average"], "average", *RATIOS)
    general, general_note = _general_measures(groups)
    tables = []
    for table, measures, note in (("Table 1", math, _RATIO_NOTE), ("Table 2", general, general_note)):
        for size, others in (("0.6b", ()), ("1.7b", ("8b/teacher",))):
            rows = [f"{size}/{method}" for method in _METHODS]
            lines = [table_line(groups, table, row) for row in rows]
            lines += [table_line(groups, table, row, label=find_row(row).size_title) for row in others]
            title = f"{table}: {find_row(rows[0]).size_title}, accuracy (%)"
            tables.append(compare(title, lines, measures, note=note))
    short = ("average", *RATIOS)
    ablations = [table_line(groups, "Table 3", f"1.7b/{method}") for method in _ABLATIONS]
    tables.append(compare("Table 3: ablation on Qwen3-1.7B (%)", ablations, short, note=_RATIO_NOTE))
    tables.append(teacher_free_table(groups, "1.7b", "Table 4: teacher-free inference of Qwen3-1.7B (%)"))
    for table, measures in (("Table 5", short), ("Table 6", math)):
        lines = [
            table_line(groups, table, f"1.7b/{method}") for method in ("fixed_20", "fixed_100", "fixed_500", "relay")
        ]
        title = f"{table}: calls of a fixed length on Qwen3-1.7B (%)"
        tables.append(compare(title, lines, measures, note=_RATIO_NOTE))
    return tuple(tables)


def _general_measures(groups: Groups) -> tuple[tuple[str, ...], str]:
    """Table 2's columns and its note: BBEH's official score stands after its mean where its tasks are known."""
    official = f"bbeh{HARMONIC}"
    numbers = {len(one.strata) for group in groups.groups if (one := measure_of(group, official))}
    if not numbers:
        return _GENERAL, ""
    note = (
        f"{HARMONIC.strip().capitalize()}: BBEH's official score, over {'/'.join(map(str, sorted(numbers)))} of its "
        f"{NUM_BBEH_TASKS} tasks, 1 added to each accuracy. The paper does not say which of the two it prints."
    )
    return tuple(name for benchmark in _GENERAL for name in (benchmark, *([official] * (benchmark == "bbeh")))), note


def teacher_free_table(groups: Groups, size: str, title: str) -> Table:
    """Table 4: with and without the teacher; Easy and Hard, or the size's benchmarks."""
    lines = [table_line(groups, "Table 4", f"{size}/grpo")]
    for method in ("relay_simple", "relay"):
        row = f"{size}/{method}"
        lines.append(table_line(groups, "Table 4", row))
        free = f"{find_row(row).title}, w/o Teacher"
        lines.append(table_line(groups, "Table 4", row, policy=TEACHER_FREE, label=free))
    facts = paper().sizes[size]
    if not facts.is_in_paper:
        return compare(title, lines, (*_averaged(groups, facts), facts.average))
    note = "Easy: mean of Minerva, MATH500, GSM8K and Olympiad. Hard: mean of both AIME."
    return compare(title, lines, ("easy", "hard"), note=note)


def _averaged(groups: Groups, size: Size) -> tuple[str, ...]:
    """The columns of the benchmarks that the size's average is over."""
    return paper().averaged(
        size, dict.fromkeys(name for group in groups.of_size(size.name) for name in group.benchmarks)
    )


def teachers_table(groups: Groups, size: str, title: str) -> Table:
    """Figure 3: the student under other teachers than the one of training, and under none."""
    facts = paper().sizes[size]
    note = "The paper's number without a teacher follows from Table 4. " if facts.is_in_paper else ""
    return compare(title, teachers_lines(groups, size), (facts.average, *RATIOS), note=f"{note}{_RATIO_NOTE}")


def teachers_lines(groups: Groups, size: str) -> list[Line]:
    """Figure 3's lines: no teacher, then teachers from the smallest to the largest, as far as their names say."""
    row = f"{size}/relay"
    known = {e.teacher: e.values for e in paper().entries if e.table == "Figure 3" and e.row == row and e.teacher}
    free = paper().find("Table 4", row, policy=TEACHER_FREE)
    hidden = {"average": (4 * free["easy"] + 2 * free["hard"]) / 6} if free else {}
    measured = {g.teacher: g for g in groups.of_size(size) if (g.row, g.policy) == (row, "learned") and g.teacher}
    lines = [Line("none", hidden, groups.find(row, TEACHER_FREE))]
    names = sorted({**known, **measured}, key=_size_of)
    return lines + [Line(f"{name}", known.get(name, {}), measured.get(name)) for name in names]


def _size_of(teacher: str) -> tuple[float, str]:
    """Billions of parameters in a name such as 'Qwen3-1.7B', then the name."""
    match = re.search(r"([0-9]+(?:\.[0-9]+)?)b\b", teacher, re.IGNORECASE)
    return (float(match[1]) if match else float("inf"), teacher)


def own_tables(groups: Groups, size: str) -> tuple[Table, ...]:
    """The same tables for a pair of our own, which the paper has no numbers for; those that something stands in."""
    facts = paper().sizes[size]
    columns = (*_averaged(groups, facts), facts.average, "call_rate", *RATIOS)
    methods = [row.method for row in paper().rows.values() if row.size == size]
    rest = {*_METHODS, *_ABLATIONS, "teacher", "warm"}
    ours = [method for method in methods if method not in rest and not method.startswith("fixed_")]
    fixed = [method for method in methods if method.startswith("fixed_")]
    parts = (
        (f"Table 1 on {facts.title} (%)", [method for method in (*_METHODS, *ours, "teacher") if method in methods]),
        (f"Table 3 on {facts.title} (%)", [method for method in _ABLATIONS if method in methods]),
        (f"Tables 5 and 6 on {facts.title} (%)", [*fixed, "relay"]),
    )
    tables = [
        compare(title, [table_line(groups, "", f"{size}/{method}") for method in names], columns, note=_RATIO_NOTE)
        for title, names in parts
    ]
    tables.insert(2, teacher_free_table(groups, size, f"Table 4 on {facts.title}: accuracy (%)"))
    tables.append(teachers_table(groups, size, f"Figure 3 on {facts.title}: other teachers (%)"))
    return tuple(table for table in tables if table.is_measured)
