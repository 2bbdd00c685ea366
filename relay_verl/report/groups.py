"""Results that belong together: one row under one policy and one teacher, in several training seeds.

Invariant: the seeds of a group answered the same questions under the same limits, and groups of one size that share a
benchmark answered the same questions of it. A result that does not fit is refused with a one-line message.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from itertools import product
from typing import Any

from relay_verl.errors import UserError, as_user_error
from relay_verl.recipes.paper import Row, Size, find_row, paper
from relay_verl.traces.records import ResponseRecord
from relay_verl.traces.results import Result
from relay_verl.traces.verdicts import VerdictsBy, check_verdicts, is_for_judge, take_verdicts
from relay_verl.traces.words import TEACHER_ALONE, condition_words, has_both, natural_policies, policy_order


@dataclass(frozen=True, eq=False)
class Group:
    """A row of a table: a paper's row, a policy, a teacher."""

    row: str | None
    """Name of the row, such as '1.7b/relay'; None if the results do not say."""
    policy: str
    """How commands were treated."""
    teacher: str | None
    """Name of the teacher that answered; None if there was none."""
    seeds: tuple[tuple[Result, ...], ...]
    """The results of each training seed; more than one where a student's benchmarks lie in several folders."""
    by: VerdictsBy = VerdictsBy.RULE
    """Whose verdicts count."""
    is_thinking: bool = False
    """Whether prompts were in the thinking mode of the chat template."""

    @property
    def row_facts(self) -> Row | None:
        """The row itself; None if the results do not say."""
        return find_row(self.row) if self.row else None

    @property
    def size(self) -> str | None:
        """Name of the row's size."""
        return self.row_facts.size if self.row_facts else None

    @property
    def size_facts(self) -> Size | None:
        """The row's size; None if the results do not say their row."""
        return paper().sizes[self.size] if self.size else None

    @property
    def method(self) -> str | None:
        """Method of the row."""
        return self.row_facts.method if self.row_facts else None

    @property
    def average(self) -> tuple[str, ...]:
        """The benchmarks that its average is over: those of its size, or all that were measured."""
        return paper().averaged(self.size_facts, self.benchmarks) if self.size_facts else self.benchmarks

    @cached_property
    def records(self) -> tuple[Sequence[ResponseRecord], ...]:
        """The records of each seed, right or wrong by `by`."""
        return tuple(take_verdicts(records, self.by) for records in self.raw_records)

    @property
    def raw_records(self) -> tuple[Sequence[ResponseRecord], ...]:
        """The records of each seed as they were written: right or wrong by rule, and the judge's verdict apart."""
        return tuple([record for result in results for record in result.records] for results in self.seeds)

    @cached_property
    def num_samples(self) -> Mapping[str, int]:
        """Responses to each question, by benchmark."""
        counts = Counter((record.benchmark, record.id) for record in self.records[0])
        return {benchmark: number for (benchmark, _), number in counts.items()}

    @cached_property
    def benchmarks(self) -> tuple[str, ...]:
        """Data sources of its questions: the paper's in the paper's order, then others."""
        benchmarks = dict.fromkeys(record.benchmark for record in self.records[0])
        known = [name for name in paper().benchmarks if name in benchmarks]
        return (*known, *(name for name in benchmarks if name not in paper().benchmarks))

    @property
    def family(self) -> str:
        """What its conditions are of: the size, or the model where the results do not say their row."""
        if self.size_facts:
            return self.size_facts.heading
        one = self.seeds[0][0]
        if self.policy == TEACHER_ALONE:
            return one.teacher_name or _last_part(one.teacher)
        return _last_part(one.student)

    @property
    def words(self) -> str:
        """Who answered under which policy, without the names of models; a label of one's own where there is no row."""
        label = self.seeds[0][0].job.get("condition")
        is_labelled = self.row is None and label not in (None, self.policy)
        words = str(label) if is_labelled else condition_words(self.row_facts, self.policy)
        return f"{words}, thinking" if self.is_thinking else words


def _last_part(path: str | None) -> str:
    return (path or "").rstrip("/").rpartition("/")[2]


@dataclass(frozen=True)
class Groups:
    """All groups of a report."""

    groups: tuple[Group, ...]
    """In the order of the paper's rows; those without a row last."""
    by: VerdictsBy = VerdictsBy.RULE
    """Whose verdicts count."""
    judge: str | None = None
    """Name of the judge, by which alone they were judged; None if it is not known."""

    def find(self, row: str, policy: str | None = None, teacher: str | None = None) -> Group | None:
        """The group of a row; None if it was not measured.

        Args:
            row: its name.
            policy: None takes the one under which the row is what its name says.
            teacher: its teacher's name; None takes the one of training (`reference_teacher`), or none at all.

        Of two modes of the chat template it is the one without thinking (`thinking` gives the groups with it alone).
        """
        method = find_row(row).method
        shown = sorted(self.groups, key=lambda group: not group.is_thinking)  # of two the last one is taken
        for wanted in (policy,) if policy else natural_policies(method):
            by_teacher = {g.teacher: g for g in shown if (g.row, g.policy) == (row, wanted)}
            # A student that never asks is itself only without a teacher.
            is_alone = method in ("base", "grpo") and not (policy and has_both(policy))
            reference = None if is_alone else self.reference_teacher(row.partition("/")[0])
            for name in (teacher,) if teacher else (reference, None):
                if name in by_teacher:
                    return by_teacher[name]
        if method == "teacher":
            alone = [g for g in self.groups if g.policy == TEACHER_ALONE]
            return next((g for g in alone if g.size_facts and g.size_facts.teacher == row), None)
        return None

    @property
    def thinking(self) -> Groups:
        """Those in the thinking mode of the chat template."""
        return replace(self, groups=tuple(group for group in self.groups if group.is_thinking))

    def of_size(self, size: str) -> list[Group]:
        """The groups of one size, in order."""
        return [group for group in self.groups if group.size == size]

    def reference_teacher(self, size: str) -> str | None:
        """The teacher of training: the paper's where it answered, else the one that answered in most groups."""
        names = Counter(group.teacher for group in self.of_size(size) if group.teacher)
        papers = [name for name in names if name.lower() == "qwen3-8b"]
        return papers[0] if papers else max(names, key=lambda name: names[name], default=None)


def group_results(results: Sequence[Result], by: VerdictsBy = VerdictsBy.RULE) -> Groups:
    """Put results together, but for those without responses; `by` says whose verdicts count.

    Raises:
        UserError: an unknown row; results of one row with other benchmarks, limits or questions, or twice the same
            student; by judge, responses without a verdict, or another judge. Says which field differs and in which
            folders.
    """
    results = [result for result in results if result.records]
    check_verdicts(results, by)
    keyed: dict[tuple[object, ...], dict[tuple[str, str], list[Result]]] = {}
    for result in results:
        _check_row(result)
        model = _model_of(result)
        label = (model, str(result.job.get("condition"))) if result.row is None else ()
        key = (result.row, result.policy, _teacher_of(result), result.is_thinking, *label)
        keyed.setdefault(key, {}).setdefault((model, str(result.job.get("seed"))), []).append(result)
    groups = []
    for students in keyed.values():
        for results_of_one in students.values():
            _check_apart(results_of_one)
        seeds = tuple(sorted(map(tuple, students.values()), key=lambda of_one: of_one[0].training_seed or 0))
        one = seeds[0][0]
        group = Group(one.row, one.policy, _teacher_of(one), seeds, by, one.is_thinking)
        _check_alike(group)
        groups.append(group)
    _check_questions(results)
    order = {name: number for number, name in enumerate(paper().rows)}
    groups.sort(
        key=lambda group: (
            order.get(group.row or "", len(order)),
            policy_order(group.row_facts, group.policy),
            group.teacher or "",
            group.is_thinking,
        )
    )
    return Groups(tuple(groups), by, _common_judge(results) if by is VerdictsBy.JUDGE else None)


def _common_judge(results: Sequence[Result]) -> str | None:
    """The name of the judge of all results that a judge decides on. Where it can be reached makes no difference."""
    judged = [result for result in results if any(map(is_for_judge, _benchmarks_of(result)))]
    specs = [{key: value for key, value in (one.judge or {}).items() if key != "base_url"} for one in judged]
    for result, spec in zip(judged, specs, strict=True):
        if where := _first_difference(specs[0], spec, "judge"):
            raise UserError(f"--by judge: {where} differs between {judged[0].folder} and {result.folder}")
    return specs[0].get("model") if specs else None


def _model_of(result: Result) -> str:
    """The model that writes: the student, with its head if it has one, or the teacher where it answers alone."""
    role = "teacher" if result.policy == TEACHER_ALONE and result.row is None else "student"
    head = (result.job.get("defer") or {}).get("head_sha256", "")
    return f"{result.job.get(f'{role}_sha256') or result.job.get(role)}{head}"


def _teacher_of(result: Result) -> str | None:
    return result.teacher_name if has_both(result.policy) else None


def _check_row(result: Result) -> None:
    with as_user_error(UserError, str(result.folder)):
        if result.row is not None:
            find_row(result.row)


def _benchmarks_of(result: Result) -> dict[str, None]:
    return dict.fromkeys(record.benchmark for record in result.records)


def _check_apart(results: Sequence[Result]) -> None:
    """Folders of one student may hold different benchmarks; the same one twice is not a second seed."""
    seen: dict[str, Result] = {}
    for result in results:
        for name in _benchmarks_of(result):
            if name in seen:
                raise UserError(
                    f"{seen[name].folder} and {result.folder} both hold this student and seed on {name}: give one"
                )
            seen[name] = result


def _check_alike(group: Group) -> None:
    first = group.seeds[0]
    for results in group.seeds:
        for result in results:
            where = _first_difference(first[0].job.get("limits"), result.job.get("limits"), "limits")
            if where:
                raise UserError(_differ(group.row, where, first[0], result))
        names, others = ({name for result in side for name in _benchmarks_of(result)} for side in (first, results))
        if names != others:
            missing = ", ".join(sorted(names ^ others))
            raise UserError(_differ(group.row, f"benchmarks ({missing})", first[0], results[0]))


def _check_questions(results: Sequence[Result]) -> None:
    """Results of one size have the same questions, samples and sampling of a benchmark; so has its teacher, which may
    be of another size."""
    seen: dict[tuple[str, str], tuple[Result, frozenset[tuple[str, str]], Mapping[str, int]]] = {}
    settings: dict[tuple[str, str], tuple[Result, Any]] = {}
    rows = [(result, find_row(result.row)) for result in results if result.row]
    for (result, row), size in product(rows, dict.fromkeys(row.size for _, row in rows)):
        if row.size not in (size, find_row(paper().sizes[size].teacher).size):
            continue
        for name, facts in (result.job.get("benchmarks") or {}).items():
            other, known = settings.setdefault((size, name), (result, facts))
            where = _first_difference(known, facts, f"benchmarks.{name}")
            if where:
                raise UserError(_differ(result.row, where, other, result))
        for name in _benchmarks_of(result):
            mine = [record for record in result.records if record.benchmark == name]
            questions = frozenset((record.id, record.question) for record in mine)
            counts = Counter(record.id for record in mine)
            other, theirs, their_counts = seen.setdefault((size, name), (result, questions, counts))
            if questions != theirs:
                raise UserError(_differ(result.row, f"questions of {name}", other, result))
            if counts != their_counts:
                raise UserError(_differ(result.row, f"samples a question of {name}", other, result))


def _differ(row: str | None, field: str, one: Result, other: Result) -> str:
    return f"{row or 'results without a row'}: {field} differs between {one.folder} and {other.folder}"


def _first_difference(one: Any, other: Any, name: str) -> str | None:
    """Dotted name of the first field that is not the same on both sides; None if all are."""
    if isinstance(one, Mapping) and isinstance(other, Mapping):
        for key in dict.fromkeys([*one, *other]):
            if difference := _first_difference(one.get(key), other.get(key), f"{name}.{key}"):
                return difference
        return None
    return None if one == other else name
