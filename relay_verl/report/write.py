"""Results in, report out: `report.md` with its pictures next to it, and `report.html`, which is whole by itself."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path

from relay_verl.errors import UserError
from relay_verl.jobs.byproducts import by_product
from relay_verl.recipes.paper import Size, paper
from relay_verl.report.claim import read_claims
from relay_verl.report.claim_tables import claims_section
from relay_verl.report.claim_verdict import judge_claims
from relay_verl.report.colours import kind_of
from relay_verl.report.conditions import benchmarks_of, benchmarks_table, conditions_table
from relay_verl.report.cost import calls_table, judge_table, time_table
from relay_verl.report.curves_picture import curves_picture
from relay_verl.report.differences import differences_table
from relay_verl.report.directions import directions_table
from relay_verl.report.discrepancies import discrepancies_section
from relay_verl.report.document import Document, Picture, Section, Table
from relay_verl.report.figures import benchmarks_figure, calls_figure, router_figure, teachers_figure
from relay_verl.report.groups import Group, Groups, group_results
from relay_verl.report.headline import headlines, provenance
from relay_verl.report.page_files import write_page
from relay_verl.report.random_router import router_table
from relay_verl.report.share_figure import share_figure
from relay_verl.report.spending_table import spending_table
from relay_verl.report.statistics import accuracy
from relay_verl.report.tables import own_tables, paper_tables, teachers_lines, teachers_table
from relay_verl.report.terms import terms_of
from relay_verl.traces.question_table import find_questions
from relay_verl.traces.results import find_results, read_result
from relay_verl.traces.verdicts import VerdictsBy, has_unclear_reply, is_for_judge, is_refused, verdict_of

Block = Table | Picture
_COST = "What it took"
MAX_NAMED = 3
"""Most models that the title names."""


def write_report(
    folders: Sequence[Path],
    out: Path,
    *,
    metrics: Mapping[str, Path] = {},
    by: VerdictsBy = VerdictsBy.RULE,
    claims: Path | None = None,
) -> str:
    """Write the report on all results and data files at or below `folders`; returns the text of `report.md`.

    Args:
        folders: results folders of `relay-verl eval`, or folders of them.
        out: the report's folder; it is made.
        metrics: logs of training runs by label, for the learning curves.
        by: whose verdicts count.
        claims: file of claims that were settled before, which takes the place of the paper's directions; the results
            are then data files.

    Raises:
        UserError: no results, results that cannot stand in one row, responses without a verdict, a log that cannot be
            read, or claims about other questions.
    """
    groups = group_results([read_result(folder) for folder in find_results(folders)], by)
    if not groups.groups:
        raise UserError(f"{', '.join(map(str, folders))}: expected responses, got results without any")
    if claims is None:
        document = make_document(groups)
    else:
        settled = read_claims(claims)
        section = claims_section(settled, judge_claims(settled, groups, find_questions(folders)))
        document = make_document(groups, {settled.size: section})
    if metrics:
        document = _add_curves(document, metrics, out, groups)
    return write_page(document, out, "report")


def make_document(groups: Groups, claims: Mapping[str, Section] = {}) -> Document:
    """The report without learning curves: what was measured first, and the paper's tables without ours at its end.

    Args:
        groups: the results.
        claims: by size, the claims about it that were settled before, in place of the paper's directions.
    """
    paper_blocks: list[tuple[str, Sequence[Block]]] = [("Tables of the paper", paper_tables(groups))]
    paper_blocks += [(size.title, _paper_blocks(groups, size.name)) for size in paper().students(is_in_paper=True)]
    measured = [Section(title, tuple(b for b in blocks if b.is_measured)) for title, blocks in paper_blocks]
    rest = tuple(block for _, blocks in paper_blocks for block in blocks if not block.is_measured)
    rest += tuple(
        directions_table(groups, size.name, is_measured=False)
        for size in paper().students(is_in_paper=True)
        if groups.of_size(size.name)
    )
    judged = judge_table(groups)
    costs: tuple[Block, ...] = (spending_table(groups), calls_table(groups), time_table(groups))
    if any(result.is_condensed for group in groups.groups for results in group.seeds for result in results):
        costs = ()  # a data file does not say what its responses took
    sections = [
        *claims.values(),
        _evaluations(groups),
        *(_captioned(section, groups) for section in measured),
        *(_own_section(groups, size, size.name in claims) for size in paper().students(is_in_paper=False)),
        Section(_COST, (*costs, *([judged] if judged else []))),
        _captioned(Section("Tables of the paper that nothing was measured for", rest, is_folded=True), groups),
        discrepancies_section(),
    ]
    tables = [block for section in sections for block in section.blocks if isinstance(block, Table)]
    terms = terms_of(name for table in tables for name in table.head)
    meanings = Table("What the columns mean", ("term", "meaning"), terms, num_labels=2)
    sections.append(Section("Terms", (meanings,) if meanings.rows else (), is_folded=True))
    num_seeds = sum(len(group.seeds) for group in groups.groups)
    num_responses = sum(len(records) for group in groups.groups for records in group.records)
    note = (
        f"{num_responses:,} responses of {num_seeds} evaluations, next to the numbers of RelayLLM (arXiv 2601.05167). "
        "Intervals are 95%: over training seeds (Student's t) where several differ, else over questions (bootstrap; "
        "Wilson where all answers are alike). "
        f"{_tell_verdicts(groups)}"
    )
    return Document(
        f"Evaluation of {_tell_models(groups)}",
        note,
        tuple(section for section in sections if section.blocks),
        headlines(groups),
        provenance(groups),
    )


def _tell_models(groups: Groups) -> str:
    families = list(dict.fromkeys(group.family for group in groups.groups))
    return ", ".join(families) if 0 < len(families) <= MAX_NAMED else f"{len(families)} models"


def _evaluations(groups: Groups) -> Section:
    """Every result that is given, whatever its row."""
    blocks = []
    if groups.groups:
        blocks = [conditions_table("All conditions", groups.groups)]
    if by_benchmark := benchmarks_table("Accuracy by benchmark (%)", groups.groups):
        blocks.append(by_benchmark)
    return _captioned(Section("Your evaluations", tuple(blocks)), groups, has_paper=False)


def _paper_blocks(groups: Groups, size: str) -> list[Block]:
    """Figures and claims of one size of the paper's students."""
    title = paper().sizes[size].title
    blocks: list[Block | None] = [
        router_table(groups, size, f"Figure 1 in numbers: {title}"),
        _drawn(router_figure, groups, size),
    ]
    has_figure_3 = any(entry.table == "Figure 3" and entry.row == f"{size}/relay" for entry in paper().entries)
    if has_figure_3 or groups.find(f"{size}/relay"):
        blocks += [
            teachers_table(groups, size, f"Figure 3 in numbers: other teachers of {title} (%)"),
            _drawn(teachers_figure, teachers_lines(groups, size), size),
        ]
    if groups.of_size(size):
        blocks.append(directions_table(groups, size))
        blocks += [_drawn(benchmarks_figure, groups, size), _drawn(calls_figure, groups, size)]
    return [block for block in blocks if block]


def _own_section(groups: Groups, size: Size, has_claims: bool) -> Section:
    """A pair that the paper has no numbers for: what was measured of it, and the direction of each claim, unless
    `has_claims` that were settled before."""
    shown = groups.of_size(size.name)
    if not shown:
        return Section(size.heading, ())
    directions = None if has_claims else directions_table(groups, size.name)
    is_all = len(shown) == len(groups.groups)  # then "Your evaluations" has this table
    blocks: list[Block | None] = [
        None if is_all else conditions_table(f"Every condition, {size.title}", shown),
        _drawn(share_figure, groups, size.name),
        differences_table(groups, size.name),
        directions,
    ]
    # over one benchmark the first table says all that these do
    if len(paper().groups[size.average]) > 1:
        blocks += [
            *own_tables(groups, size.name),
            _drawn(teachers_figure, teachers_lines(groups, size.name), size.name),
            _drawn(benchmarks_figure, groups, size.name),
        ]
    blocks.append(router_table(groups, size.name, f"Figure 1 on {size.title}"))
    blocks.append(_drawn(calls_figure, groups, size.name))
    note = "The paper has no numbers for it; what can be compared is the direction of each claim."
    measured = tuple(block for block in blocks if block and block.is_measured)
    return _captioned(Section(size.heading, measured, note), groups, has_paper=False)


def _drawn(figure: Callable[..., Picture | None], *arguments: object) -> Picture | None:
    """A picture, or None where drawing it fails: the tables of a report stand without it."""
    with by_product(f"the report's {figure.__name__}"):
        return figure(*arguments)
    return None


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
    num_refused = sum(map(is_refused, records))
    refused = f" So do {num_refused:,} that it refuses." if num_refused else ""
    return (
        f"Accuracy is by {_name_judge(groups)}, and by rule where answers are letters or words, as on MMLU-Pro and "
        f"BBEH. Of {len(records):,} responses for the judge {num_without:,} have no answer and are wrong without "
        f"being asked about; {num_unclear:,} replies that are neither Yes nor No count as wrong.{refused}"
    )


def _add_curves(document: Document, metrics: Mapping[str, Path], out: Path, groups: Groups) -> Document:
    """The document with the learning curves before what it took.

    Raises:
        UserError: a log cannot be read.
    """
    sections = list(document.sections)
    if picture := curves_picture(metrics, out, _references(groups)):
        places = [section.title for section in sections]
        place = places.index(_COST) if _COST in places else len(places)
        sections.insert(place, Section("Training", (picture,)))
    return replace(document, sections=tuple(sections))


def _references(groups: Groups) -> dict[str, float]:
    """Accuracy of the student alone and of the teacher alone, where one of each was measured on the same benchmarks."""
    alone: dict[str, list[Group]] = {"student": [], "teacher": []}
    for group in groups.groups:
        alone.get(kind_of(group.method, group.policy), []).append(group)
    known = [each[0] for each in alone.values() if len(each) == 1]
    if len({benchmarks_of(group) for group in known}) != 1:
        return {}
    return {
        f"{name} alone, evaluation": accuracy(each[0].records, benchmarks_of(each[0])).value
        for name, each in alone.items()
        if len(each) == 1
    }
