"""The real pair's conditions and claims: each claim has its data, and is about the questions that are asked."""

import argparse
import importlib
import sys
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

from relay_verl.benchmarks.registry import find_benchmark, load_benchmark
from relay_verl.report.claim import read_claims
from relay_verl.report.claim_power import check_power
from relay_verl.traces.question_table import facts_of

EXAMPLE = Path(__file__).parents[3] / "examples" / "real"


@pytest.fixture(scope="module")
def real() -> Iterator[ModuleType]:
    """The script, with its neighbours on the path as Python has them when it runs one."""
    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(str(EXAMPLE))
        yield importlib.import_module("real")
        for name in ("questions", "real", "stages"):
            sys.modules.pop(name, None)


def example(real: ModuleType, out: Path, **changes: Any) -> Any:
    options = {"out": out, "keep": None, "steps": 4, "questions": 300, "seeds": 2}
    return real.Example(argparse.Namespace(**(options | changes)))


def test_every_side_of_every_claim_is_measured(real: ModuleType, tmp_path: Path) -> None:
    settled = read_claims(real.CLAIMS)
    check_power(settled)
    one = example(real, tmp_path)
    conditions = [condition for group in one.conditions() for condition in group]
    measured = {(condition.row, condition.policy, condition.training_seed) for condition in conditions}
    for claim in settled.claims:
        for side in claim.sides:
            seeds = range(1, settled.num_seeds(side) + 1) if settled.is_trained(side) else [None]
            assert {(f"real/{side.row}", side.actual_policy, seed) for seed in seeds} <= measured, claim.id
    assert set(settled.seeds) == set(real.RECIPES)
    assert len({condition.out for condition in conditions}) == len(conditions), "no two conditions share a folder"


def test_the_claims_are_about_the_questions_that_are_asked(real: ModuleType, tmp_path: Path) -> None:
    settled = read_claims(real.CLAIMS)
    real.write_questions(tmp_path, num_warmup=1, num_training=1)
    asked = load_benchmark(find_benchmark("gsm8k"), tmp_path / real.EVALUATION, limit=real.NUM_EVALUATION)
    assert facts_of({"gsm8k": asked}).world == {"gsm8k": settled.world}
    assert all(claim.questions <= len(asked.rows) for claim in settled.claims)


def test_a_training_has_its_seed(real: ModuleType, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    trained: list[tuple[str, str, list[str]]] = []
    monkeypatch.setattr(
        real, "train", lambda recipe, folder, overrides: trained.append((recipe, folder.name, overrides))
    )
    one = example(real, tmp_path)
    one.train("relay", 2)
    [(recipe, name, overrides)] = trained
    assert (recipe, name) == ("relay_real", "relay_real-2")
    assert {"data.seed=2", "actor_rollout_ref.rollout.seed=2", "trainer.total_training_steps=4"} <= set(overrides)
