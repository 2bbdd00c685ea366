"""How far an LLM judge and the rule agree on the same responses (paper 4.2). Pure: no torch, Ray, verl.

Only responses with both verdicts are compared. A response without an answer has both: it is wrong by rule, and wrong
for the judge without being asked about.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from relay_verl.markdown import markdown_table
from relay_verl.traces.records import ResponseRecord


@dataclass(frozen=True)
class Agreement:
    """Verdicts of the rule next to the judge's. Each share is between 0 and 1, and NaN if there is nothing to share."""

    num_both_right: int
    """Right by rule, and the judge says so too."""
    num_rule_only: int
    """Right by rule, wrong by judge."""
    num_judge_only: int
    """Wrong by rule, right by judge."""
    num_both_wrong: int
    """Wrong by rule, and the judge says so too."""
    num_no_verdict: int
    """The judge was asked and gave no verdict."""
    num_not_asked: int
    """No judge was asked."""
    disagreeing: Sequence[ResponseRecord]
    """The responses of `num_rule_only` and `num_judge_only`, in the order of the records."""

    @property
    def num_compared(self) -> int:
        """Responses with both verdicts."""
        return self.num_both_right + self.num_rule_only + self.num_judge_only + self.num_both_wrong

    @property
    def share(self) -> float:
        """Share of the compared responses with the same verdict."""
        return _divide(self.num_both_right + self.num_both_wrong, self.num_compared)

    @property
    def rule_accuracy(self) -> float:
        """Accuracy over the compared responses by rule."""
        return _divide(self.num_both_right + self.num_rule_only, self.num_compared)

    @property
    def judge_accuracy(self) -> float:
        """Accuracy over the compared responses by judge."""
        return _divide(self.num_both_right + self.num_judge_only, self.num_compared)

    @property
    def kappa(self) -> float:
        """Cohen's kappa, (share - chance) / (1 - chance), at most 1.

        NaN if both give all responses one and the same verdict: chance alone does that.
        """
        rule, judge = self.rule_accuracy, self.judge_accuracy
        chance = rule * judge + (1 - rule) * (1 - judge)
        return _divide(self.share - chance, 1 - chance)

    def to_markdown(self) -> str:
        """The four numbers as a table, and what follows from them as a list, without a final line break."""
        rows = [
            ["rule: right", f"{self.num_both_right:,}", f"{self.num_rule_only:,}"],
            ["rule: wrong", f"{self.num_judge_only:,}", f"{self.num_both_wrong:,}"],
        ]
        return "\n".join(
            [
                markdown_table(["", "judge: right", "judge: wrong"], rows),
                "",
                f"- same verdict: {_percent(self.share)} of {self.num_compared:,} responses",
                f"- Cohen's kappa: {_or_dash(self.kappa, f'{self.kappa:.3f}')}",
                f"- accuracy: {_percent(self.rule_accuracy)} by rule, {_percent(self.judge_accuracy)} by judge",
                f"- not compared: {self.num_no_verdict:,} without a verdict, {self.num_not_asked:,} not judged",
            ]
        )


def agreement(records: Iterable[ResponseRecord]) -> Agreement:
    """Compare the verdicts that the records hold."""
    numbers: Counter[tuple[bool, bool]] = Counter()
    num_no_verdict = num_not_asked = 0
    disagreeing = []
    for record in records:
        if record.judge is None:
            num_not_asked += 1
        elif record.judge["is_correct"] is None:
            num_no_verdict += 1
        else:
            numbers[record.is_correct, record.judge["is_correct"]] += 1
            if record.is_correct != record.judge["is_correct"]:
                disagreeing.append(record)
    return Agreement(
        num_both_right=numbers[True, True],
        num_rule_only=numbers[True, False],
        num_judge_only=numbers[False, True],
        num_both_wrong=numbers[False, False],
        num_no_verdict=num_no_verdict,
        num_not_asked=num_not_asked,
        disagreeing=disagreeing,
    )


def _divide(part: float, whole: float) -> float:
    return part / whole if whole else math.nan


def _percent(share: float) -> str:
    return _or_dash(share, f"{100 * share:.1f}%")


def _or_dash(value: float, text: str) -> str:
    return "–" if math.isnan(value) else text
