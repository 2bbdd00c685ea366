"""How the overlap check judges real pairs of questions."""

import subprocess
import sys
from collections import Counter
from pathlib import Path

from tests.helpers.overlap_pairs import judge, load_pairs, precision_and_recall


def test_precision_and_recall_on_labelled_pairs() -> None:
    kinds = judge(load_pairs())
    precision, recall = precision_and_recall(kinds)
    wrong = [
        (pair.training, pair.evaluation, pair.label, kind)
        for pair, kind in kinds.items()
        if (kind is not None) != (pair.label == "same")
    ]
    assert precision >= 0.98 and recall >= 0.94, wrong


def test_each_look_finds_some_that_the_others_do_not() -> None:
    kinds = judge(load_pairs())
    num_by_look = Counter(kind for pair, kind in kinds.items() if kind and pair.label == "same")
    assert num_by_look["exact"] >= 20 and num_by_look["ngram"] >= 70 and num_by_look["lcs"] >= 8


def test_no_pair_of_unrelated_problems_is_flagged() -> None:
    flagged = {pair.training for pair, kind in judge(load_pairs()).items() if kind and pair.label == "unrelated"}
    assert not flagged


def test_the_agreement_program_prints_its_table(tmp_path: Path) -> None:
    root = Path(__file__).parents[3]
    program = [sys.executable, str(root / "tests" / "overlap_agreement.py")]
    table = subprocess.run(program, cwd=tmp_path, capture_output=True, text=True, timeout=120)
    assert table.returncode == 0, table.stderr
    for label, num_pairs in Counter(pair.label for pair in load_pairs()).items():
        assert f"| {label} | {num_pairs} |" in table.stdout
    assert "precision" in table.stdout and "recall" in table.stdout
