"""Numbers and tables that a page cites from data files, so that they are generated and can be checked.

    The relay is right on <!-- data: relay accuracy -->61.7%<!-- end --> of the questions.
    <!-- data: relay@other accuracy grade=4/5 -->...<!-- end -->    another teacher, some of the questions
    <!-- data: relay:teacher_free call_rate -->...<!-- end -->      another policy
    <!-- data: claim relay_above_grpo -->...<!-- end -->            a verdict with its numbers
    <!-- data: claims -->...<!-- end -->                            the table of verdicts
    <!-- data: verdicts -->...<!-- end -->                          how many claims have which verdict
    <!-- data: seeds -->...<!-- end -->                             the table of training seeds, planned and measured
    <!-- data: conditions -->...<!-- end -->                        the table of all conditions

Invariant: `cite` changes what stands between two marks alone, not in blocks of code, and what it gives it gives again.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from functools import cached_property
from pathlib import Path

import numpy as np

from relay_verl.errors import UserError, as_user_error, suggest
from relay_verl.report.claim import Claims, Side, read_claims
from relay_verl.report.claim_measures import MEASURES
from relay_verl.report.claim_tables import claims_table, count_verdicts, seeds_table, tell
from relay_verl.report.claim_verdict import ClaimBench, Judged, judge_claims
from relay_verl.report.conditions import conditions_table
from relay_verl.report.document import Table, table_to_markdown
from relay_verl.report.groups import Groups, group_results
from relay_verl.traces.question_table import QuestionFacts, find_questions
from relay_verl.traces.results import find_results, read_result

_MARK = re.compile(r"(<!-- data: (?P<what>[^>]+?) -->)(?P<text>.*?)(<!-- end -->)", re.DOTALL)
_CODE = re.compile(r"(```.*?```)", re.DOTALL)
_SIDE = re.compile(r"(?P<row>[a-z0-9_]+)(?::(?P<policy>[a-z0-9_.]+))?(?:@(?P<teacher>[\w.-]+))?")


class Data:
    """Data files and the claims about them.

    Args:
        folders: of data files.
        claims: the file of claims.
    """

    def __init__(self, folders: Sequence[Path], claims: Path):
        self.claims: Claims = read_claims(claims)
        self.questions: QuestionFacts = find_questions(folders)
        self.groups: Groups = group_results([read_result(path) for path in find_results(folders)])

    @cached_property
    def judged(self) -> list[Judged]:
        """The verdicts."""
        return judge_claims(self.claims, self.groups, self.questions)

    def cite(self, text: str) -> str:
        """The page with its marked numbers and tables as the data have them.

        Raises:
            UserError: what a mark names is not known, or was not measured.
        """
        parts = _CODE.split(text)  # every other one is code
        parts[::2] = [_MARK.sub(lambda m: f"{m[1]}{self._generate(m['what'])}{m[4]}", part) for part in parts[::2]]
        return "".join(parts)

    def _generate(self, what: str) -> str:
        with as_user_error(UserError, lambda error: f"data: {what}: {error}"):
            match what.split():
                case ["claims"]:
                    return _block(claims_table(self.claims, self.judged))
                case ["verdicts"]:
                    return count_verdicts(self.judged)
                case ["seeds"]:
                    return _block(seeds_table(self.claims, self.groups))
                case ["conditions"]:
                    shown = self.groups.of_size(self.claims.size)
                    return _block(conditions_table("Conditions", shown))
                case ["claim", id]:
                    return self._claim(id)
                case [side, measure, *where]:
                    return self._number(side, measure, where)
        raise UserError(f"data: {what}: expected claims, verdicts, seeds, conditions, claim ID, or ROW MEASURE")

    def _claim(self, id: str) -> str:
        known = {one.claim.id: one for one in self.judged}
        if id not in known:
            raise UserError(f"{id!r}: no such claim{suggest(id, known)}")
        return tell(known[id])

    def _number(self, side: str, measure: str, where: Sequence[str]) -> str:
        parts = _SIDE.fullmatch(side)
        if parts is None or measure not in MEASURES:
            raise UserError(f"expected ROW:POLICY@TEACHER and one of {', '.join(MEASURES)}")
        chosen = {name: _values(text) for name, _, text in (item.partition("=") for item in where)}
        bench = ClaimBench(self.claims, self.groups, self.questions)
        values = bench.values(Side(**parts.groupdict()), measure, chosen)
        kind = MEASURES[measure]
        return f"{float(np.mean(values)):.{1 if kind.is_percent else 2}f}{kind.unit}"


def _values(text: str) -> tuple[int | str, ...]:
    return tuple(int(value) if value.isdecimal() else value for value in text.split("/"))


def _block(table: Table) -> str:
    return f"\n{table_to_markdown(table)}\n\n{table.note}\n"


def has_marks(text: str) -> bool:
    """Whether a page cites data."""
    return any(map(_MARK.search, _CODE.split(text)[::2]))
