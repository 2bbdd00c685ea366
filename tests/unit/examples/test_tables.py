"""The tiny world's tables: which steps in which order, that all claims have their data, and a run that is killed."""

import importlib.util
import itertools
import json
import shutil
import sys
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from types import ModuleType
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from relay_verl.defer.head_folder import save_info
from relay_verl.defer.head_info import Calibration, HeadInfo, HeadKind
from relay_verl.errors import UserError
from relay_verl.evaluation.suite import Condition
from relay_verl.pipeline import Run, run_steps
from relay_verl.recipes.paper import paper
from relay_verl.report.claim import read_claims
from relay_verl.report.claim_verdict import judge_claims
from relay_verl.report.groups import group_results
from relay_verl.traces.question_table import find_questions, write_questions
from relay_verl.traces.results import find_results, read_result
from tests.helpers.made_results import keep_result, world, write_result

FOLDER = Path(__file__).parents[3] / "examples" / "tiny"
WORLD = world(20)


@pytest.fixture(scope="module")
def script() -> Iterator[ModuleType]:
    """examples/ is not a package; the script finds its neighbours by its folder."""
    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(str(FOLDER))
        spec = importlib.util.spec_from_file_location("tiny_tables", FOLDER / "tables.py")
        assert spec is not None and spec.loader is not None
        module = importlib.util.module_from_spec(spec)
        patch.setitem(sys.modules, "tiny_tables", module)
        spec.loader.exec_module(module)
        yield module
        for name in ("kept_pair", "stage_one", "tables", "world"):
            sys.modules.pop(name, None)


def planned(script: ModuleType, out: Path) -> Any:
    return script.Tables(out, out / "data", dict(read_claims(script.CLAIMS).seeds))


def names_of(script: ModuleType, out: Path, *seed_sets: int) -> list[str]:
    return [step.name for step in planned(script, out).steps(seed_sets)]


def test_every_row_of_the_tiny_world_is_trained_and_measured(script: ModuleType, tmp_path: Path) -> None:
    rows = {row.method for row in paper().rows.values() if row.size == "tiny"}
    seeds = read_claims(script.CLAIMS).seeds
    assert {*script.RECIPES, *script.HEADS, "base", "teacher"} == rows
    assert set(seeds) == rows - {"base", "teacher", "entropy"}
    assert {row for row, number in seeds.items() if number == 5} == {"grpo", "relay_simple", "relay"}
    assert set(seeds.values()) == {5, 3}
    names = names_of(script, tmp_path, 1)
    trained = {name.removeprefix("train ").removesuffix("-1") for name in names if name.startswith("train ")}
    assert trained == set(script.RECIPES)
    assert {f"make head {head}-1" for head in script.HEADS} <= set(names)


def test_a_seed_set_is_whole_before_the_next_begins(script: ModuleType, tmp_path: Path) -> None:
    names = names_of(script, tmp_path, 1, 2, 3, 4, 5)
    assert names[0] == "measure the models alone"
    sets = [int(name[-1]) if name.startswith(("train", "make")) else int(name.split()[3][:-1]) for name in names[1:]]
    assert sets == sorted(sets)
    measured = "measure seed set 5, grpo, relay_simple, relay"
    of_last = [name for name in names if name.endswith("-5") or "set 5" in name]
    assert of_last == ["train grpo-5", "train relay_simple-5", "train relay-5", measured]
    trained = [name for name in names if name.startswith("train")]
    assert trained[:3] == ["train grpo-1", "train relay_simple-1", "train relay-1"], "those with most seeds"


def test_every_side_of_every_claim_is_measured(script: ModuleType, tmp_path: Path) -> None:
    settled = read_claims(script.CLAIMS)
    for claim in settled.claims:
        for side in claim.sides:
            seed = 1 if settled.is_trained(side) else None
            conditions = script.conditions_of(side.row, seed, Path("/s"), tmp_path, tmp_path)
            measured = {(one.policy, one.teacher and Path(one.teacher).name) for one in conditions}
            assert side.actual_policy in {policy for policy, _ in measured}, claim.id
            assert side.teacher is None or (side.actual_policy, side.teacher) in measured, claim.id


def test_conditions_say_their_row_and_their_training_seed(script: ModuleType, tmp_path: Path) -> None:
    for one in script.conditions_of("relay", 4, Path("/s"), tmp_path, tmp_path / "results"):
        assert (one.row, one.training_seed) == ("tiny/relay", 4)
        assert one.out.parent == tmp_path / "results" / "relay-4"
    every = [
        one.out
        for row, seed in (("base", None), ("teacher", None), *((row, 1) for row in read_claims(script.CLAIMS).seeds))
        for one in script.conditions_of(row, seed, Path("/s"), tmp_path, tmp_path)
    ]
    assert len(every) == len(set(every)), "no two conditions share a folder"


class KilledError(BaseException):
    """The process ends here."""


class World:
    """Trainings and evaluations that leave what the real ones leave, and end the process at the chosen moments."""

    def __init__(self, out: Path, deaths: set[int]):
        self.out = out
        self.deaths = deaths
        self.num_moments = 0
        self.log: list[str] = []

    def moment(self) -> None:
        self.num_moments += 1
        if self.num_moments in self.deaths:
            raise KilledError

    def train(self, recipe: str, folder: Path, **_: Any) -> Run:
        self.log.append(f"train {folder.name}")
        self.moment()
        (folder / "student").mkdir(parents=True)
        (folder / "student" / "config.json").write_text("{}")
        self.moment()
        return Run(folder)

    def run(self, command: list[str]) -> None:
        words = dict(itertools.pairwise(command))
        folder = Path(words["--out"]) / words["--head"]
        self.log.append(f"head {folder.parent.name}/{folder.name}")
        self.moment()
        folder.mkdir(parents=True)
        save_info(folder, HeadInfo(HeadKind.ENTROPY, calibration=Calibration(0.03, 0.03)))
        self.moment()

    def evaluate(self, config: Any, conditions: list[Condition], *_: Any) -> None:
        for one in conditions:
            if (one.out / "responses.jsonl.manifest.json").exists():
                continue
            self.log.append(f"measure {one.out.relative_to(self.out)}")
            self.moment()
            assert one.row is not None
            head = config.get("head")
            write_result(
                one.out,
                WORLD,
                one.row.removeprefix("tiny/"),
                lambda number: (number % 2 == 0, 40, 3),
                policy=one.policy,
                teacher_name=one.teacher and Path(one.teacher).name,
                seed=one.training_seed,
                **({"defer": {"head_sha256": head}} if head else {}),
            )
            self.moment()


class Config(dict[str, Any]):
    """Stands for a composed recipe."""

    def changed(self, key: str, value: Any) -> "Config":
        return Config(head=value)


def run_all(script: ModuleType, world_: World, patch: pytest.MonkeyPatch) -> tuple[int, dict[str, str]]:
    """Runs the program again after each kill; the number of kills, and what failed."""
    for name in ("train", "run", "evaluate"):
        patch.setattr(script, name, getattr(world_, name))
    patch.setattr(script, "RunConfig", lambda _: Config())
    patch.setattr(script, "compose", lambda *_: None)
    patch.setattr(script, "tiny_suite", lambda _: None)
    tables = planned(script, world_.out)
    patch.setattr(type(tables), "split", lambda self: (self.out, self.out))
    write_questions(tables.keep, WORLD)
    num_kills = 0
    while True:
        try:
            failures = run_steps(tables.steps([1, 2]), lambda _: None)
        except KilledError:
            num_kills += 1
            continue
        return num_kills, failures


@settings(max_examples=10, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(deaths=st.sets(st.integers(1, 120), max_size=8))
def test_a_run_that_is_killed_continues_with_the_step_that_was_under_way(
    script: ModuleType, tmp_path_factory: pytest.TempPathFactory, deaths: set[int]
) -> None:
    fake = World(tmp_path_factory.mktemp("tables"), deaths)
    with pytest.MonkeyPatch.context() as patch:
        num_kills, failures = run_all(script, fake, patch)
    assert failures == {}
    assert len(fake.log) <= len(set(fake.log)) + num_kills, "a kill costs at most what ran"
    kept = find_results([fake.out / "data"])
    assert len(kept) == sum(name.startswith("measure") for name in set(fake.log))
    rows = {(read_result(path).row, read_result(path).training_seed) for path in kept}
    expected = [("relay", 1), ("relay", 2), ("citer", 2), ("entropy", None), ("teacher", None)]
    assert {(f"tiny/{row}", seed) for row, seed in expected} <= rows
    groups = group_results([read_result(path) for path in kept])
    settled = replace(read_claims(script.CLAIMS), world=None)  # the questions are others here
    judged = judge_claims(settled, groups, find_questions([fake.out / "data"]))
    assert not [one.why for one in judged if "was not measured" in one.why]


def test_another_machine_continues_from_the_data_files(script: ModuleType, tmp_path: Path) -> None:
    first = World(tmp_path / "one", set())
    with pytest.MonkeyPatch.context() as patch:
        run_all(script, first, patch)
    second = World(tmp_path / "two", set())
    shutil.copytree(first.out / "data", second.out / "data")
    (second.out / "data" / "relay-2.teacher_free.csv").unlink()
    with pytest.MonkeyPatch.context() as patch:
        _, failures = run_all(script, second, patch)
    assert failures == {}
    assert [name for name in second.log if "relay-2" not in name] == []
    assert second.log[0] == "train relay-2"


def test_data_of_another_teacher_is_not_taken(
    script: ModuleType, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    tables = planned(script, tmp_path)
    condition = tables.conditions_of("relay", 1)[0]
    kept = write_result(tmp_path / "r", WORLD, "relay", lambda _: (True, 9, 0), seed=1, teacher_sha256="a")
    keep_result(tables.keep, WORLD, kept)
    monkeypatch.setattr(script, "model_sha256", lambda _: "a")
    assert tables.is_kept(condition)
    monkeypatch.setattr(script, "model_sha256", lambda _: "b")
    assert not tables.is_kept(condition)


def test_a_row_that_cannot_be_trained_costs_its_own_numbers_alone(script: ModuleType, tmp_path: Path) -> None:
    class Failing(World):
        def train(self, recipe: str, folder: Path, **options: Any) -> Run:
            if folder.name.startswith("no_filter"):
                raise script.StageError("the trainer ended with code 1")
            return super().train(recipe, folder, **options)

    fake = Failing(tmp_path, set())
    with pytest.MonkeyPatch.context() as patch:
        _, failures = run_all(script, fake, patch)
    assert set(failures) == {"train no_filter-1", "train no_filter-2"}
    rows = {read_result(path).row for path in find_results([tmp_path / "data"])}
    assert "tiny/no_filter" not in rows
    assert {"tiny/no_independence", "tiny/no_exploration", "tiny/relay"} <= rows


def test_data_of_other_questions_is_not_added_to(
    script: ModuleType, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    tables = planned(script, tmp_path)
    write_questions(tables.keep, replace(WORLD, world={"tiny": "0" * 64}))
    monkeypatch.setattr(script, "build_pair", lambda *_: None)
    monkeypatch.setattr(script, "warm_up_and_filter", lambda *_, **__: None)
    questions = tmp_path / "pair" / "test.parquet"
    questions.parent.mkdir()
    row = {
        "data_source": "tiny/add",
        "prompt": [{"role": "user", "content": "What is 1+1?"}],
        "ability": "math",
        "reward_model": {"style": "rule", "ground_truth": "2"},
        "extra_info": {"index": 0, "id": "a", "grade": 1},
    }
    pq.write_table(pa.Table.from_pylist([row]), questions)
    with pytest.raises(UserError, match=r"--keep: .* has results on other questions"):
        tables.prepare()


def test_the_plan_says_what_is_left(
    script: ModuleType, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    student = tmp_path / "train" / "relay-1" / "student"
    student.mkdir(parents=True)
    (student / "config.json").write_text(json.dumps({}))
    words = ["--out", str(tmp_path), "--plan", "--rows", "relay", "--seed-set", "1"]
    monkeypatch.setattr(sys, "argv", ["tables.py", *words])
    script.main()
    assert capsys.readouterr().out.splitlines() == [
        "left  measure the models alone",
        "done  train relay-1",
        "left  make head entropy-1",
        "left  measure seed set 1, relay",
        "left  measure seed set 1, entropy",
    ]
