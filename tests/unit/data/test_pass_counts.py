"""Pass counts and what a threshold makes of them; stopping early gives the verdicts of a full pass."""

from fractions import Fraction
from pathlib import Path

import pyarrow.parquet as pq
import pytest
from hypothesis import given
from hypothesis import strategies as st

from relay_verl.data.pass_counts import PassCount, num_needed
from tests.helpers.generators import SeededEngine, filter_job, run, write_questions

RATES = st.sampled_from([0.0, 0.1, 0.25, 0.3, 0.5, 2 / 3, 0.7, 0.9, 1.0])


@pytest.mark.parametrize(
    ("num_samples", "rate", "needed", "why"),
    [
        (10, 0.5, 5, "at or above counts"),
        (10, 0.3, 3, "0.3 * 10 is a little more than 3 in floating point"),
        (10, 0.7, 7, "0.7 * 10 is a little less than 7"),
        (7, 0.5, 4, "half a response is a whole one"),
        (10, 0.01, 1, "anything above 0 asks for one"),
        (16, 0.0, 0, "keeps all"),
        (3, 1.0, 3, "all of them"),
    ],
)
def test_how_many_are_needed(num_samples: int, rate: float, needed: int, why: str) -> None:
    assert num_needed(num_samples, rate) == needed, why


@given(outcomes=st.lists(st.booleans(), min_size=1, max_size=20), rate=RATES)
def test_a_verdict_once_known_never_changes_and_is_the_full_pass_s(outcomes: list[bool], rate: float) -> None:
    n = len(outcomes)
    verdicts = [PassCount(n, done, sum(outcomes[:done])).is_solvable(rate) for done in range(n + 1)]
    full = Fraction(sum(outcomes), n) >= Fraction(rate).limit_denominator(1000)
    assert verdicts[-1] == full
    known = [verdict for verdict in verdicts if verdict is not None]
    assert set(known) == {full}
    assert None not in verdicts[verdicts.index(full) :]


@given(outcomes=st.lists(st.booleans(), min_size=1, max_size=20), rate=RATES)
def test_waves_end_exactly_when_the_verdict_is_known_and_waste_no_sample(outcomes: list[bool], rate: float) -> None:
    n = len(outcomes)
    count = PassCount(n, 0, 0)
    while wave := count.next_wave(rate):
        assert count.is_solvable(rate) is None
        for extra in range(1, wave):  # no outcome of a part of the wave could have settled it
            best = PassCount(n, count.num_done + extra, count.num_correct + extra)
            worst = PassCount(n, count.num_done + extra, count.num_correct)
            assert best.is_solvable(rate) is None
            assert worst.is_solvable(rate) is None
        done = count.num_done + wave
        count = PassCount(n, done, sum(outcomes[:done]))
    assert count.is_solvable(rate) == PassCount(n, n, sum(outcomes)).is_solvable(rate)


def test_counts_that_cannot_be_are_refused() -> None:
    with pytest.raises(ValueError, match="num_correct <= num_done"):
        PassCount(10, 3, 4)


def test_stopping_early_saves_samples_and_changes_no_verdict(tmp_path: Path) -> None:
    source = write_questions(tmp_path / "questions.parquet", 40)

    def counts(stop_at: float | None) -> tuple[list[PassCount], int]:
        teacher, out = SeededEngine(), tmp_path / f"{stop_at}.parquet"
        run(filter_job(source, teacher, stop_at=stop_at), source, out)
        return [PassCount.of(column) for column in pq.read_table(out)["teacher_pass"].to_pylist()], teacher.num_asked

    full, all_asked = counts(None)
    early, asked = counts(0.5)
    assert all_asked == 400
    assert 200 <= asked < 400
    verdicts = [count.is_solvable(0.5) for count in full]
    assert [count.is_solvable(0.5) for count in early] == verdicts
    assert {True, False} == set(verdicts)
    assert len({count.pass_rate for count in full}) > 5, "the teacher is of every kind"
