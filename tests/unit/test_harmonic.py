"""BBEH's official score over its tasks, and where the summary table shows it."""

from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from relay_verl.evaluation.harmonic import harmonic_accuracy, harmonic_mean_over_tasks
from relay_verl.evaluation.records import ResponseRecord
from relay_verl.evaluation.table import summarize, to_markdown

from .records_for_tests import record as a_record

TASKS = st.dictionaries(st.text(max_size=3), st.lists(st.booleans(), min_size=1, max_size=8), min_size=1, max_size=23)


@given(TASKS)
def test_it_lies_between_the_worst_task_and_the_mean(correct_by_task: dict[str, list[bool]]) -> None:
    accuracies = [100 * sum(correct) / len(correct) + 1 for correct in correct_by_task.values()]
    value = harmonic_mean_over_tasks(correct_by_task)
    assert min(accuracies) - 1e-9 <= value <= sum(accuracies) / len(accuracies) + 1e-9
    assert value == pytest.approx(len(accuracies) / sum(1 / accuracy for accuracy in accuracies))


def test_a_task_without_a_right_answer_does_not_make_it_0() -> None:
    assert harmonic_mean_over_tasks({"a": [False, False], "b": [True, True]}) == pytest.approx(2 / (1 / 1 + 1 / 101))
    assert harmonic_mean_over_tasks({"a": [False]}) == 1


@pytest.mark.parametrize("correct_by_task", [{}, {"a": []}, {"a": [True], "b": []}])
def test_nothing_to_average_is_an_error(correct_by_task: dict[str, list[bool]]) -> None:
    with pytest.raises(ValueError, match="task"):
        harmonic_mean_over_tasks(correct_by_task)


def record(task: str | None, is_correct: bool, benchmark: str = "bbeh") -> ResponseRecord:
    return a_record(task=task, is_correct=is_correct, benchmark=benchmark)


def test_only_where_every_response_has_a_task() -> None:
    both = [record("a", True), record("b", False)]
    assert harmonic_accuracy(both) == harmonic_mean_over_tasks({"a": [True], "b": [False]})
    assert harmonic_accuracy([*both, record(None, True)]) is None
    assert harmonic_accuracy(both[:1]) is None
    assert harmonic_accuracy([]) is None


def test_the_table_shows_it_next_to_the_mean() -> None:
    records = [record("a", True), record("b", False), record(None, True, "math-500")]
    (summary,) = summarize(records)
    assert summary.accuracy == {"bbeh": 0.5, "math-500": 1.0}
    assert summary.mean_accuracy == 0.75  # the paper's average takes the plain mean
    assert summary.harmonic_accuracy == {"bbeh": pytest.approx(2 / (1 / 101 + 1) / 100)}
    header = to_markdown([summary], {"bbeh": "BBEH"}).splitlines()[0]
    assert header.index("BBEH accuracy") < header.index("BBEH harmonic accuracy") < header.index("math-500 accuracy")
    assert "harmonic" not in to_markdown(summarize(records[2:]))


def test_a_record_keeps_its_task_and_older_files_are_read() -> None:
    written = record("time arithmetic", True)
    assert ResponseRecord.from_json(written.to_json()) == written
    older = replace(written, task=None).to_json().replace(', "task": null', "")
    assert "task" not in older and ResponseRecord.from_json(older).task is None
