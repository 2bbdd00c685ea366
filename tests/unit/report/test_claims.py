"""Claims: their file, their power, what made-up results show of them, and the pages that cite them."""

import re
from dataclasses import replace
from pathlib import Path
from random import Random
from typing import Any

import numpy as np
import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st
from typer.testing import CliRunner

from relay_verl.cli.main import app
from relay_verl.errors import UserError
from relay_verl.report import write_report
from relay_verl.report.cited import Data, has_marks
from relay_verl.report.claim import Claim, Claims, Direction, NoiseSource, Side, Spread, read_claims
from relay_verl.report.claim_effect import Effect, Part, effect_of, jackknife_error, join
from relay_verl.report.claim_measures import MEASURES, Answers, References, answers_of
from relay_verl.report.claim_power import check_power, needed_questions, power_of
from relay_verl.report.claim_verdict import Judged, Verdict, decide, judge_claims
from relay_verl.report.groups import Groups, group_results
from relay_verl.traces.question_table import find_questions
from relay_verl.traces.results import find_results, read_result
from tests.helpers.made_results import keep_result, world, write_result

WORLD = world(100)
GRPO, RELAY = Side("grpo"), Side("relay")


def claim(**changes: Any) -> Claim:
    plain = Claim(
        id="relay_above_grpo",
        place="Table 1",
        sentence="A relay is more accurate than GRPO.",
        measure="accuracy",
        of=RELAY,
        to=GRPO,
        direction=Direction.MORE,
        smallest=10.0,
        spread=Spread(40.0, 3.0),
    )
    return replace(plain, **changes)


def claims(*some: Claim, **changes: Any) -> Claims:
    return Claims(**({"size": "tiny", "claims": some or (claim(),), "seeds": {"grpo": 3, "relay": 3}} | changes))


def write_claims(path: Path, *some: dict[str, Any], **changes: Any) -> Path:
    entry = {
        "id": "relay_above_grpo",
        "place": "Table 1",
        "sentence": "A relay is more accurate than GRPO.",
        "measure": "accuracy",
        "of": {"row": "relay"},
        "to": {"row": "grpo"},
        "direction": "more",
        "smallest": 10,
        "spread": {"seeds": 3, "questions": 40},
    }
    entries = [entry | one for one in some or ({},)]
    content = {"size": "tiny", "seeds": {"grpo": 3, "relay": 3}, "claims": entries} | changes
    path.write_text(yaml.safe_dump(content))
    return path


# the file

BAD: list[tuple[dict[str, Any], dict[str, Any], str]] = [
    ({"measure": "luck"}, {}, r"measure: 'luck': expected one of accuracy"),
    ({"of": {"row": "rely"}}, {}, r"row: 'tiny/rely' is not one of .*did you mean 'tiny/relay'"),
    ({"direction": "up"}, {}, r"claims\.0\.direction: 'up'"),
    ({"smallest": 0}, {}, r"claims\.0\.smallest: 0"),
    ({"smalest": 1}, {}, r"claims\.0\.smalest: unknown key; allowed: .*smallest"),
    ({"to": None}, {}, r"relay_above_grpo: give either to or constant"),
    ({"constant": 5}, {}, r"relay_above_grpo: give either to or constant"),
    ({"margin": 5}, {}, r"smallest: 10: expected the margin, 5"),
    ({"spread": {"questions": 40}}, {}, r"claims\.relay_above_grpo\.spread\.seeds: 0"),
    ({}, {"size": "small"}, r"size: 'small': expected one of"),
    ({}, {"seeds": {"relayy": 3}}, r"seeds\.relayy: .*did you mean 'relay'"),
    ({}, {"alpha": 1.5}, r"alpha: 1\.5"),
]


@pytest.mark.parametrize(("entry", "changes", "message"), BAD)
def test_a_bad_file_is_refused_by_key(
    tmp_path: Path, entry: dict[str, Any], changes: dict[str, Any], message: str
) -> None:
    with pytest.raises(UserError, match=message):
        read_claims(write_claims(tmp_path / "claims.yaml", entry, **changes))


def test_an_id_stands_once(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="'relay_above_grpo' stands there twice"):
        read_claims(write_claims(tmp_path / "claims.yaml", {}, {}))


def test_registered_claims_change_with_a_reason_alone(tmp_path: Path) -> None:
    file = tmp_path / "claims.yaml"
    registered = read_claims(write_claims(file)).fingerprint
    assert read_claims(write_claims(file, registered=registered)).registered == registered
    with pytest.raises(UserError, match=r"differ from those that were registered.*fingerprint: [0-9a-f]{64}") as error:
        read_claims(write_claims(file, {"smallest": 5}, registered=registered))
    fingerprint = re.findall("[0-9a-f]{64}", str(error.value))[-1]
    change = {"date": "2026-12-01", "claims": ["relay_above_grpo"], "reason": "too strict", "fingerprint": fingerprint}
    changed = read_claims(write_claims(file, {"smallest": 5}, registered=registered, changes=[change]))
    assert changed.changes[0].reason == "too strict"
    with pytest.raises(UserError, match="differ from those that were changed last"):
        read_claims(write_claims(file, {"smallest": 4}, registered=registered, changes=[change]))


# power


@given(smallest=st.floats(8.0, 30), spread=st.floats(5, 60))
def test_the_needed_questions_are_the_fewest_that_are_enough(smallest: float, spread: float) -> None:
    one = claim(smallest=smallest, spread=Spread(spread, 1.0))
    settled = claims(one)
    needed = needed_questions(settled, one)
    assert power_of(settled, one, needed) >= settled.power
    assert needed == 10 or power_of(settled, one, needed - 1) < settled.power


def test_power_is_how_often_such_a_difference_is_told_from_none() -> None:
    """The law itself, by drawing seeds and questions: a simulation without the formulas of the power."""
    one, num_questions = claim(smallest=12.0, spread=Spread(40.0, 3.0)), 150
    settled = claims(one, planned_level=0.05)
    rng = np.random.default_rng(0)
    num_shown = 0
    for _ in range(2000):
        of = 12 + rng.normal(0, 3, 3)
        to = rng.normal(0, 3, 3)
        questions = rng.normal(0, 40, num_questions)
        value = of.mean() - to.mean() + questions.mean()
        parts = [Part(float(v.std(ddof=1)) / 3**0.5, 2) for v in (of, to)]
        joined = join([*parts, Part(float(questions.std(ddof=1)) / num_questions**0.5, num_questions - 1)])
        effect = Effect(value, 0, 0, joined.error, joined.freedom, 3, num_questions)
        num_shown += value > 0 and effect.p_value(0) < 0.05
    assert num_shown / 2000 == pytest.approx(power_of(settled, one, num_questions), abs=0.05)


def test_differences_too_small_for_the_seeds_are_refused() -> None:
    one = claim(smallest=2.0)
    with pytest.raises(UserError, match=r"claims\.relay_above_grpo\.smallest: 2: .*expected \d"):
        needed_questions(claims(one), one)


def test_the_number_in_the_file_is_that_of_the_power() -> None:
    one = claim(smallest=15.0)
    needed = needed_questions(claims(one), one)
    check_power(claims(replace(one, questions=needed)))
    with pytest.raises(UserError, match=rf"questions: {needed + 1}: expected {needed}"):
        check_power(claims(replace(one, questions=needed + 1)))


# the difference


def answers(right: np.ndarray, **others: np.ndarray) -> Answers:
    """Answers to questions of one benchmark: [num_questions, num_seeds]."""
    counts = {name: np.zeros_like(right, dtype=float) for name in ("called", "teacher_tokens", "calls", "asked")}
    counts |= {"samples": np.ones_like(right, dtype=float), "right": right.astype(float)}
    counts |= {"tokens": np.full_like(right, 40, dtype=float)}
    counts |= {name: values.astype(float) for name, values in others.items()}
    numbers = np.arange(len(right))
    facts = {"grade": 1 + numbers % 5, "needed": 1 + numbers % 7}
    return Answers(np.array(["tiny/mul"] * len(right)), facts, counts)


NONE = References(None, None)


def test_what_makes_a_question_hard_cancels_out() -> None:
    """The same questions are right on both sides, but for a few: the noise is that of the few."""
    right = np.arange(200)[:, None] % 2 == np.zeros((1, 3))
    more = right.copy()
    more[:20] = True
    effect = effect_of(claim(test=NoiseSource.QUESTIONS), answers(more), answers(right), NONE)
    assert effect.value == pytest.approx(5.0)
    differences = 100 * (more - right.astype(float)).mean(axis=1)
    assert effect.error == pytest.approx(differences.std(ddof=1) / 200**0.5, rel=1e-6)


def test_seeds_of_one_student_pair_up() -> None:
    rng = np.random.default_rng(1)
    level = np.array([0.3, 0.5, 0.7])
    with_teacher, without = (rng.random((400, 3)) < level + extra for extra in (0.2, 0.0))
    paired = claim(to=Side("relay", "teacher_free"))
    apart = claim()
    one = effect_of(paired, answers(with_teacher), answers(without), NONE)
    other = effect_of(apart, answers(with_teacher), answers(without), NONE)
    assert one.value == other.value
    assert one.error < other.error / 2, "the seeds' own levels cancel out"


def test_all_alike_still_has_a_width() -> None:
    effect = effect_of(claim(), answers(np.ones((50, 3))), answers(np.zeros((50, 3))), NONE)
    assert effect.value == 100
    assert effect.interval[0] < 98
    assert effect.p_value(0) < 1e-6


def test_the_jackknife_of_a_mean_is_its_standard_error() -> None:
    values = np.random.default_rng(0).normal(size=60)
    error = jackknife_error(lambda places: float(values[places].mean()), [np.arange(60)], 60)
    assert error == pytest.approx(values.std(ddof=1) / 60**0.5)


def test_measures_of_a_relay() -> None:
    ones = np.ones((40, 1))
    half = np.array([[number % 2] for number in range(40)])
    base, teacher = answers(0 * ones), answers(ones)
    asked = np.where(half == 1, (1 + np.arange(40) % 7)[:, None], 0)
    relay = answers(half, called=half, calls=half, asked=asked, teacher_tokens=asked)
    both = References(base, teacher)
    value = {name: float(measure.values(relay, both)[0]) for name, measure in MEASURES.items()}
    ratio = 100 * asked.sum() / (40 * 40)
    assert value["accuracy"] == value["call_rate"] == value["gap_recovered"] == 50
    assert value["call_ratio"] == pytest.approx(ratio)
    assert value["above_router"] == pytest.approx(50 - ratio)
    assert value["saved_against_router"] == pytest.approx(100 * (1 - ratio / 50))
    assert value["tokens_per_call"] == pytest.approx(asked.sum() / 20)
    assert value["asked_by_needed"] == pytest.approx(1.0), "it asks for what is needed wherever it calls"
    assert -0.2 < value["called_by_grade"] < 0.2


def test_measures_that_mean_nothing_are_nan() -> None:
    alone = answers(np.ones((20, 2)))
    assert np.isnan(MEASURES["asked_by_needed"].values(alone, NONE)).all(), "no call"
    assert np.isnan(MEASURES["gap_recovered"].values(alone, References(alone, alone))).all(), "no gap"


# verdicts


def judged(value: float, error: float, **changes: Any) -> Judged:
    return Judged(claim(**changes), Verdict.NOT_SHOWN, "", Effect(value, value, 0, error, 1e6, 3, 100))


CASES = [
    (15.0, 2.0, {}, Verdict.SHOWN, "far from zero, and as large as counts"),
    (6.0, 1.0, {}, Verdict.NOT_SHOWN, "far from zero, but smaller than what counts"),
    (1.0, 2.0, {}, Verdict.NOT_SHOWN, "the interval ends below what counts"),
    (6.0, 4.0, {}, Verdict.TOO_FEW, "the interval has none and one that counts"),
    (-15.0, 2.0, {}, Verdict.OPPOSITE, "far from zero on the other side"),
    (-15.0, 2.0, {"direction": Direction.LESS}, Verdict.SHOWN, "less was claimed"),
    (15.0, 2.0, {"direction": Direction.LESS}, Verdict.OPPOSITE, "less was claimed"),
    (-2.0, 1.0, {"margin": 10.0}, Verdict.SHOWN, "within the margin"),
    (-20.0, 1.0, {"margin": 10.0}, Verdict.OPPOSITE, "beyond the margin"),
    (-9.0, 8.0, {"margin": 10.0}, Verdict.TOO_FEW, "the margin and zero are both in the interval"),
    (-9.0, 2.0, {"margin": 10.0}, Verdict.NOT_SHOWN, "zero is not in the interval, and the margin is"),
]


@pytest.mark.parametrize(("value", "error", "changes", "verdict", "why"), CASES)
def test_verdicts(value: float, error: float, changes: dict[str, Any], verdict: Verdict, why: str) -> None:
    [one] = decide([judged(value, error, **changes)], 0.05)
    assert one.verdict is verdict, why


def test_many_claims_are_held_to_more() -> None:
    """A difference that one claim alone would show is one of chance among twenty."""
    [alone] = decide([judged(11.0, 5.0)], 0.05)
    assert alone.verdict is Verdict.SHOWN
    among = decide([judged(11.0, 5.0), *[judged(0.0, 5.0)] * 19], 0.05)
    assert among[0].verdict is not Verdict.SHOWN
    assert among[0].p_value == pytest.approx(20 * alone.p_value), "Benjamini and Hochberg: the smallest of 20"


def test_a_claim_without_data_takes_no_part_in_the_correction() -> None:
    missing = Judged(claim(), Verdict.TOO_FEW, "not measured")
    [one, *others] = decide([judged(11.0, 5.0), *[missing] * 19], 0.05)
    assert one.verdict is Verdict.SHOWN
    assert others == [missing] * 19


# over data files


def keep(
    tmp_path: Path, row: str, share: float, *, seeds: tuple[int, ...] = (1, 2, 3), tokens: int = 0, **changes: Any
) -> None:
    for seed in seeds or (None,):
        rng = Random(f"{row}{seed}")
        folder = tmp_path / "results" / f"{row}-{seed}-{changes.get('policy', '')}"
        policy = {"policy": "student_alone" if row in ("grpo", "base") else "learned"} | changes

        def answer(number: int, rng: Random = rng) -> tuple[bool, int, int]:
            return rng.random() < share, 40, tokens

        write_result(folder, WORLD, row, answer, seed=seed, **policy)
        keep_result(tmp_path / "data", WORLD, folder)


def groups_in(folder: Path) -> Groups:
    return group_results([read_result(path) for path in find_results([folder])])


def judge_in(tmp_path: Path, settled: Claims) -> list[Judged]:
    return judge_claims(settled, groups_in(tmp_path / "data"), find_questions([tmp_path / "data"]))


def test_a_claim_is_shown_and_its_opposite_is_not(tmp_path: Path) -> None:
    keep(tmp_path, "grpo", 0.2)
    keep(tmp_path, "relay", 0.9, tokens=3)
    less = claim(id="less", direction=Direction.LESS)
    one, other = judge_in(tmp_path, claims(claim(), less))
    assert (one.verdict, other.verdict) == (Verdict.SHOWN, Verdict.OPPOSITE)
    assert one.effect is not None
    assert one.effect.value == pytest.approx(70, abs=15)
    assert (one.effect.num_seeds, one.effect.num_questions) == (3, 100)


def test_a_missing_seed_is_named_and_keeps_the_claim_from_being_judged(tmp_path: Path) -> None:
    keep(tmp_path, "grpo", 0.2, seeds=(1, 3))
    keep(tmp_path, "relay", 0.9, seeds=(1, 2, 3, 4), tokens=3)
    [one] = judge_in(tmp_path, claims())
    assert one.verdict is Verdict.TOO_FEW
    assert one.why == "grpo: training seed 2 missing"
    assert one.effect is not None, "its numbers are told"


def test_seeds_past_those_planned_are_left_out(tmp_path: Path) -> None:
    keep(tmp_path, "grpo", 0.2)
    keep(tmp_path, "relay", 0.9, tokens=3)
    before = judge_in(tmp_path, claims())
    keep(tmp_path, "relay", 0.0, seeds=(4, 5))
    assert judge_in(tmp_path, claims()) == before


def test_a_row_that_was_not_measured_is_named(tmp_path: Path) -> None:
    keep(tmp_path, "grpo", 0.2)
    [one] = judge_in(tmp_path, claims())
    assert (one.verdict, one.why) == (Verdict.TOO_FEW, "relay was not measured")
    elsewhere = claim(of=Side("relay", teacher="other"))
    keep(tmp_path, "relay", 0.9, tokens=3)
    [one] = judge_in(tmp_path, claims(elsewhere))
    assert one.why == "relay with the teacher other was not measured"


def test_a_student_without_training_is_known_under_policies_with_a_teacher(tmp_path: Path) -> None:
    keep(tmp_path, "base", 0.2, seeds=(), teacher_name=None)
    keep(tmp_path, "base", 0.5, seeds=(), policy="random_0.1", tokens=3)
    keep(tmp_path, "relay", 0.9, tokens=3)
    alone, random = judge_in(
        tmp_path, claims(claim(id="alone", to=Side("base")), claim(id="random", to=Side("base", "random_0.1")))
    )
    assert alone.effect is not None and random.effect is not None, (alone.why, random.why)
    assert random.effect.value < alone.effect.value - 15


def test_too_few_questions_are_told(tmp_path: Path) -> None:
    keep(tmp_path, "grpo", 0.2)
    keep(tmp_path, "relay", 0.9, tokens=3)
    [one] = judge_in(tmp_path, claims(claim(where={"grade": (1, 2)}, questions=41)))
    assert (one.verdict, one.why) == (Verdict.TOO_FEW, "40 of the 41 questions that it needs")
    [one] = judge_in(tmp_path, claims(claim(where={"grade": (1, 2), "benchmark": ("tiny/add",)}, questions=20)))
    assert one.verdict is Verdict.SHOWN
    assert one.effect is not None
    assert one.effect.num_questions == 20


def test_a_fact_that_is_not_known_is_refused(tmp_path: Path) -> None:
    keep(tmp_path, "grpo", 0.2)
    with pytest.raises(UserError, match=r"claims\.relay_above_grpo: grad: .*did you mean 'grade'"):
        judge_in(tmp_path, claims(claim(where={"grad": (1,)})))


def test_results_of_another_world_are_refused(tmp_path: Path) -> None:
    keep(tmp_path, "grpo", 0.2)
    with pytest.raises(UserError, match=r"world: 0000: the results are on other questions: tiny [0-9a-f]{64}"):
        judge_in(tmp_path, claims(world="0000"))
    assert judge_in(tmp_path, claims(world=WORLD.world["tiny"]))


def test_lengths_that_follow_need_are_seen(tmp_path: Path) -> None:
    needed = WORLD.facts["needed"]
    for seed in (1, 2, 3):
        folder = tmp_path / "results" / f"relay-{seed}"
        write_result(folder, WORLD, "relay", lambda number: (True, 60, int(needed[number])), seed=seed)
        keep_result(tmp_path / "data", WORLD, folder)
    follows = claim(to=None, constant=0.0, measure="asked_by_needed", smallest=0.3)
    [one] = judge_in(tmp_path, claims(follows))
    assert one.verdict is Verdict.SHOWN
    assert one.effect is not None
    assert one.effect.value == pytest.approx(1.0)


def test_seeds_have_to_answer_the_same_questions(tmp_path: Path) -> None:
    keep(tmp_path, "grpo", 0.2)
    records = groups_in(tmp_path / "data").groups[0].records
    with pytest.raises(UserError, match="questions"):
        answers_of([records[0], records[1][1:]], WORLD)


# the report and the pages


@pytest.fixture
def data(tmp_path: Path) -> Path:
    keep(tmp_path, "grpo", 0.2)
    keep(tmp_path, "relay", 0.9, tokens=3)
    return tmp_path / "data"


def test_the_report_opens_with_the_verdicts(tmp_path: Path, data: Path) -> None:
    entry = {"id": "missing", "of": {"row": "no_filter"}}
    registered = read_claims(write_claims(tmp_path / "claims.yaml", {}, entry)).fingerprint
    changes = [{"date": "2026-12-01", "claims": ["missing"], "reason": "a slip", "fingerprint": registered}]
    file = write_claims(tmp_path / "claims.yaml", {}, entry, registered=registered, changes=changes)
    text = write_report([data], tmp_path / "report", claims=file)
    assert "1 shown, 0 not shown, 0 opposite, 1 too few data" in text
    assert re.search(r"\| A relay is more accurate than GRPO\. +\| Table 1 .*\| +shown \|", text)
    assert "too few data: no\\_filter was not measured" in text or "too few data: no_filter was not measured" in text
    assert "a slip" in text
    assert "What the paper claims, on the tiny world" not in text, "the settled claims take its place"


def test_the_command_prints_power_and_verdicts(tmp_path: Path, data: Path) -> None:
    file = write_claims(tmp_path / "claims.yaml", {"smallest": 15})
    run = CliRunner().invoke
    result = run(app, ["claims", str(file)])
    assert isinstance(result.exception, UserError), "no number of questions in the file"
    needed = needed_questions(read_claims(file), read_claims(file).claims[0])
    write_claims(file, {"smallest": 15, "questions": needed})
    assert f"| {needed} |" in " ".join(run(app, ["claims", str(file)]).output.split())
    write_claims(file, {"smallest": 15})
    page = tmp_path / "page.md"
    page.write_text("Right: <!-- data: relay accuracy -->0%<!-- end -->.\n")
    result = run(app, ["claims", str(file), "--results", str(data), "--cite", str(page)])
    assert result.exit_code == 0, result.output
    assert "shown" in result.output
    assert re.fullmatch(r"Right: <!-- data: relay accuracy -->[89]\d\.\d%<!-- end -->\.\n", page.read_text())


def test_a_page_has_the_numbers_of_the_data(tmp_path: Path, data: Path) -> None:
    source = Data([data], write_claims(tmp_path / "claims.yaml"))
    page = (
        "<!-- data: relay call_ratio -->?<!-- end --> <!-- data: relay accuracy grade=1/2 -->?<!-- end --> "
        "<!-- data: claim relay_above_grpo -->?<!-- end --><!-- data: claims -->?<!-- end --> rest"
    )
    cited = source.cite(page)
    assert cited.startswith("<!-- data: relay call_ratio -->7.5%<!-- end -->")
    assert "-->shown (+" in cited
    assert cited.endswith("<!-- end --> rest")
    assert source.cite(cited) == cited, "the same data give the same page"
    code = "```markdown\n<!-- data: relay accuracy -->?<!-- end -->\n```"
    assert source.cite(code) == code
    assert not has_marks(code)
    assert has_marks(page) and not has_marks("no marks")


def test_a_page_says_which_seeds_are_there(tmp_path: Path) -> None:
    keep(tmp_path, "relay", 0.9, seeds=(1, 3), tokens=3)
    source = Data([tmp_path / "data"], write_claims(tmp_path / "claims.yaml"))
    cited = source.cite("<!-- data: verdicts -->?<!-- end --> <!-- data: seeds -->?<!-- end -->")
    assert ">1 claims: 0 shown, 0 not shown, 0 opposite, 1 too few data<" in cited
    lines = [[cell.strip() for cell in line.split("|")[1:-1]] for line in cited.splitlines() if line.startswith("|")]
    assert lines[2:] == [["grpo", "1 to 3", "–"], ["relay", "1 to 3", "1, 3"]]


@pytest.mark.parametrize(
    ("what", "message"),
    [
        ("rely accuracy", "rely was not measured|tiny/rely"),
        ("relay luck", "expected ROW:POLICY@TEACHER and one of accuracy"),
        ("claim relay_above", "no such claim; did you mean 'relay_above_grpo'"),
        ("everything", "expected claims, verdicts, seeds, conditions"),
    ],
)
def test_a_mark_of_what_is_not_there_is_refused(tmp_path: Path, data: Path, what: str, message: str) -> None:
    source = Data([data], write_claims(tmp_path / "claims.yaml"))
    with pytest.raises(UserError, match=message):
        source.cite(f"<!-- data: {what} -->?<!-- end -->")
