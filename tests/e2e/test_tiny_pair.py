"""The graded tiny pair, pre-trained in full: graded knowledge, as many tokens needed as its questions say, and the same
files from the same seed, bit by bit."""

import hashlib
import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

ROOT = Path(__file__).parents[2]
PAIR = ROOT / "outputs" / "test-graded-pair"
HELP = (1, 3, 6, 12, 25)
FILES = (
    *(f"{model}/{name}" for model in ("student", "teacher") for name in ("model.safetensors", "tokenizer.json")),
    *("questions.parquet", "test.parquet"),
)

pytestmark = [pytest.mark.e2e, pytest.mark.slow, pytest.mark.timeout(3600)]


def build(out: Path, *options: str) -> dict[str, Any]:
    """The manifest of a pair in `out`, which stays for the next run where `out` does."""
    script = ROOT / "examples" / "tiny" / "pretrain.py"
    subprocess.run(
        [sys.executable, str(script), "--world", "graded", "--out", str(out), *options], check=True, timeout=3600
    )
    return json.loads((out / "manifest.json").read_text())


@pytest.fixture(scope="module")
def manifest() -> dict[str, Any]:
    return build(PAIR, "--measure")


GREEDY, SAMPLED = "accuracy_greedy", "accuracy_sampled"
RANGES = [
    ("student", GREEDY, (0.93, 0.65, 0.4, 0.12, 0.0), (1.0, 0.88, 0.65, 0.38, 0.15)),
    ("student", SAMPLED, (0.85, 0.55, 0.33, 0.1, 0.0), (1.0, 0.8, 0.57, 0.32, 0.12)),
    ("teacher", GREEDY, (0.96, 0.88, 0.75, 0.6, 0.4), (1.0, 1.0, 0.92, 0.8, 0.6)),
    ("teacher", SAMPLED, (0.96, 0.85, 0.72, 0.55, 0.35), (1.0, 1.0, 0.92, 0.8, 0.6)),
]


@pytest.mark.parametrize(("model", "mode", "at_least", "at_most"), RANGES)
def test_accuracy_falls_over_the_grades(
    manifest: dict[str, Any], model: str, mode: str, at_least: tuple[float, ...], at_most: tuple[float, ...]
) -> None:
    shares = [manifest["measured"][model][mode]["grade"][grade] for grade in "12345"]
    assert shares == sorted(shares, reverse=True)
    assert all(low <= share <= high for low, share, high in zip(at_least, shares, at_most, strict=True)), shares


def test_many_questions_are_half_known(manifest: dict[str, Any]) -> None:
    """Of eight samples some are right and some wrong."""
    shares = manifest["measured"]["student"]["half_known"]["grade"]
    assert all(shares[grade] > 0.15 for grade in "123"), shares


def test_neither_knows_a_hash(manifest: dict[str, Any]) -> None:
    for measured in manifest["measured"].values():
        assert measured[SAMPLED]["hash"] < 0.02


@pytest.mark.parametrize("needed", HELP)
def test_the_tokens_needed_help_and_fewer_do_not(manifest: dict[str, Any], needed: int) -> None:
    """On the questions that the teacher alone answers and the student does not: with `needed` tokens or more of the
    teacher's in the right place the student is right, with fewer it is not."""
    by_num = {num: manifest["help"]["teacher_dependent"][str(num)]["needed"][str(needed)] for num in HELP}
    assert all(share >= 0.9 for num, share in by_num.items() if num >= needed), by_num
    assert all(share <= 0.2 for num, share in by_num.items() if num < needed), by_num


def test_the_warm_up_teaches_commands_and_forgets_no_answer(manifest: dict[str, Any]) -> None:
    """Of the answers that the student has learned by heart, two thirds are those of questions that the warm-up does not
    ask."""
    script = ROOT / "examples" / "tiny" / "stage_one.py"
    command = [sys.executable, str(script), "--world", "graded", "--out", str(PAIR), "--measure"]
    printed = subprocess.run(command, check=True, timeout=3600, stdout=subprocess.PIPE, text=True).stdout
    before, after = json.loads(printed[printed.index("\n{\n") :]).values()
    assert after["accuracy_greedy"]["grade"]["1"] >= before["accuracy_greedy"]["grade"]["1"] - 0.05
    assert after["accuracy_greedy"]["grade"]["2"] >= before["accuracy_greedy"]["grade"]["2"] - 0.1
    assert before["command_share"] < 0.02 < 0.1 < after["command_share"]


def test_the_models_are_small(manifest: dict[str, Any]) -> None:
    sizes = {name: measured["num_parameters"] for name, measured in manifest["measured"].items()}
    assert 400_000 < sizes["student"] < 500_000 and 500_000 < sizes["teacher"] < 800_000


def test_the_same_seed_gives_the_same_pair(tmp_path: Path) -> None:
    hashes = []
    for name, seed in (("one", "3"), ("again", "3"), ("other", "4")):
        manifest = build(tmp_path / name, "--steps-scale", "0.004", "--seed", seed)
        assert manifest["world"] == "graded" and "help" not in manifest
        hashes.append({file: hashlib.sha256((tmp_path / name / file).read_bytes()).hexdigest() for file in FILES})
    one, again, other = hashes
    assert one == again
    assert {file for file in FILES if one[file] == other[file]} == {file for file in FILES if "tokenizer" in file}
