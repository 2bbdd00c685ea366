"""How the overlap check judges real pairs of questions."""

from collections import Counter

from .overlap_pairs import judge, load_pairs, precision_and_recall


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
