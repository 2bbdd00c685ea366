"""Results in, report out: `report.md` with its pictures beside it, and `report.html`, which is whole by itself."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path

from relay_verl.config import ConfigError
from relay_verl.evaluation.curves import plot_curves
from relay_verl.evaluation.paper import find_row, paper
from relay_verl.evaluation.report.cost import calls_table, judge_table, time_table
from relay_verl.evaluation.report.directions import directions_table
from relay_verl.evaluation.report.document import Document, Picture, Section, Table, to_html, to_markdown
from relay_verl.evaluation.report.drawing import standalone, to_svg
from relay_verl.evaluation.report.figures import benchmarks_figure, calls_figure, router_figure, teachers_figure
from relay_verl.evaluation.report.groups import Groups, group_results
from relay_verl.evaluation.report.random_router import router_table
from relay_verl.evaluation.report.tables import paper_tables, teachers_lines, teachers_table, tiny_tables
from relay_verl.evaluation.results import find_results, read_result
from relay_verl.evaluation.verdicts import VerdictsBy, has_unclear_reply, is_for_judge, verdict_of
from relay_verl.files import replace_file


def write_report(
    folders: Sequence[Path], out: Path, *, metrics: Mapping[str, Path] = {}, by: VerdictsBy = VerdictsBy.RULE
) -> str:
    """Write the report on all results at or below `folders`; returns the text of `report.md`.

    Args:
        folders: results folders of `relay-verl eval`, or folders of them.
        out: the report's folder; it is made.
        metrics: logs of training runs by label, for the learning curves.
        by: whose verdicts count.

    Raises:
        ConfigError: no results, results that cannot stand in one row, responses without a verdict, or a log that cannot
            be read.
    """
    groups = group_results([read_result(folder) for folder in find_results(folders)], by)
    document = make_document(groups)
    if metrics:
        document = _add_curves(document, metrics, out)
    for section in document.sections:
        for block in section.blocks:
            if isinstance(block, Picture) and block.name != "curves":
                replace_file(out / f"{block.name}.svg", standalone(block.svg).encode())
    markdown = to_markdown(document)
    replace_file(out / "report.md", markdown.encode())
    replace_file(out / "report.html", to_html(document).encode())
    return markdown


def make_document(groups: Groups) -> Document:
    """The report without learning curves: what was measured first, and the paper's tables whether measured or not."""
    sections = [_paper_section(groups), *(_size_section(groups, size) for size in ("1.7b", "0.6b"))]
    if groups.of_size("tiny"):
        is_tiny_only = not any(groups.of_size(size) for size in ("0.6b", "1.7b", "8b"))
        sections.insert(0 if is_tiny_only else len(sections), _tiny_section(groups))
    judged = judge_table(groups)
    tables = [calls_table(groups), time_table(groups), *([judged] if judged else [])]
    sections += [Section("What it took", tuple(tables)), _discrepancies()]
    num_seeds = sum(len(group.seeds) for group in groups.groups)
    num_responses = sum(len(records) for group in groups.groups for records in group.records)
    note = (
        f"{num_responses:,} responses of {num_seeds} evaluations, beside the numbers of RelayLLM (arXiv 2601.05167). "
        "Intervals are 95%: over training seeds (Student's t) where several differ, else over questions (bootstrap). "
        f"{_tell_verdicts(groups)}"
    )
    return Document("Report", note, tuple(section for section in sections if section.blocks))


def _paper_section(groups: Groups) -> Section:
    return _captioned(Section("Tables of the paper", paper_tables(groups)), groups)


def _size_section(groups: Groups, size: str) -> Section:
    """Figures and claims of one size of the paper's students; the size that has Figure 3 always shows both figures."""
    title = find_row(f"{size}/relay").size_title
    if size != "1.7b" and not groups.of_size(size):
        return Section(title, ())
    blocks = [router_table(groups, size, f"Figure 1 in numbers: {title}"), router_figure(groups, size)]
    if size == "1.7b" or groups.find(f"{size}/relay"):
        blocks += [
            teachers_table(groups, size, f"Figure 3 in numbers: other teachers of {title} (%)"),
            teachers_figure(teachers_lines(groups, size), size),
        ]
    if groups.of_size(size):
        blocks += [directions_table(groups, size), benchmarks_figure(groups, size), calls_figure(groups, size)]
    return _captioned(Section(title, tuple(block for block in blocks if block)), groups)


def _tiny_section(groups: Groups) -> Section:
    blocks: list[Table | Picture | None] = [
        directions_table(groups, "tiny"),
        *tiny_tables(groups),
        router_table(groups, "tiny", "Figure 1 on the tiny world"),
        router_figure(groups, "tiny"),
        teachers_figure(teachers_lines(groups, "tiny"), "tiny"),
        benchmarks_figure(groups, "tiny"),
        calls_figure(groups, "tiny"),
    ]
    note = "The paper has no numbers for it; what can be compared is the direction of each claim."
    return _captioned(Section("Tiny world", tuple(block for block in blocks if block), note), groups, has_paper=False)


def _captioned(section: Section, groups: Groups, *, has_paper: bool = True) -> Section:
    """The section with whose verdicts count under each of its tables and pictures, which may be shown alone."""
    by_judge = f"by {_name_judge(groups)}, and by rule where answers are letters or words"
    ours = by_judge if groups.by is VerdictsBy.JUDGE else "by rule"
    caption = f"Accuracy is {ours}."
    if has_paper:
        caption = f"Accuracy: ours is {ours}; the paper's, on mathematics, by the LLM judge GPT-4o-mini (4.2, C.2)."
    blocks = tuple(replace(block, note=f"{block.note} {caption}".strip()) for block in section.blocks)
    return replace(section, blocks=blocks)


def _name_judge(groups: Groups) -> str:
    return f"the LLM judge {groups.judge}" if groups.judge else "an LLM judge"


def _tell_verdicts(groups: Groups) -> str:
    """Whose verdicts accuracy counts, and what by judge is not one."""
    records = [record for group in groups.groups for of_seed in group.raw_records for record in of_seed]
    if groups.by is VerdictsBy.RULE:
        is_judged = bool(records) and all(verdict_of(record, VerdictsBy.JUDGE) is not None for record in records)
        hint = "; every response has a judge's verdict, too: --by judge counts those, as the paper does"
        return f"Accuracy is by rule{hint if is_judged and any(record.judge for record in records) else ''}."
    records = [record for record in records if is_for_judge(record.benchmark)]
    num_without = sum(record.answer is None for record in records)
    num_unclear = sum(map(has_unclear_reply, records))
    return (
        f"Accuracy is by {_name_judge(groups)}, and by rule where answers are letters or words, as on MMLU-Pro and "
        f"BBEH. Of {len(records):,} responses for the judge {num_without:,} have no answer and are wrong without "
        f"being asked about; {num_unclear:,} replies that are neither Yes nor No count as wrong."
    )


def _discrepancies() -> Section:
    rows = tuple((item.place, item.says, item.but) for item in paper().discrepancies.values())
    head = ("place", "the paper says", "which does not fit")
    return Section("The paper's numbers", (Table("Where they do not tie", head, rows, num_labels=3),))


def _add_curves(document: Document, metrics: Mapping[str, Path], out: Path) -> Document:
    file = out / "curves.svg"
    try:
        plot_curves(metrics, file.with_suffix(".png"), "")
    except (OSError, ValueError) as error:
        raise ConfigError(f"--metrics: {error}") from None
    note = "Raw points, and moving averages over about a tenth of each run."
    picture = Picture("curves", "Learning curves", to_svg(file.read_text(encoding="utf-8")), note)
    sections = (*document.sections[:-1], Section("Training", (picture,)), document.sections[-1])
    return Document(document.title, document.note, sections)
