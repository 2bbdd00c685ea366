"""Labelled pairs of questions, and how the overlap check judges them; `data/overlap/README.md` says what they are."""

import json
from dataclasses import dataclass
from pathlib import Path

from relay_verl.data.overlap import find_overlaps
from relay_verl.data.schema import to_row

PAIRS_FILE = Path(__file__).parents[1] / "data" / "overlap" / "pairs.jsonl"


@dataclass(frozen=True)
class Pair:
    """A training question and an evaluation question."""

    training: str
    evaluation: str
    label: str
    """`same`, `template` or `unrelated`."""
    training_question: str
    evaluation_question: str


def load_pairs() -> list[Pair]:
    with open(PAIRS_FILE, encoding="utf-8") as lines:
        return [Pair(**json.loads(line)) for line in lines]


def judge(pairs: list[Pair]) -> dict[Pair, str | None]:
    """The kind of overlap that each pair is, None if it is none. All questions are known to the check at once."""
    training = {pair.training: pair.training_question for pair in pairs}
    evaluation = {pair.evaluation: pair.evaluation_question for pair in pairs}
    overlaps = find_overlaps(
        (to_row(data_source="d", question=question, ground_truth="", id=id) for id, question in training.items()),
        {id: [{"problem": question}] for id, question in evaluation.items()},  # a set each: the best of a set is given
    )
    kinds: dict[tuple[str, str], str] = {(overlap.id, overlap.benchmark): overlap.kind for overlap in overlaps}
    return {pair: kinds.get((pair.training, pair.evaluation)) for pair in pairs}


def precision_and_recall(kinds: dict[Pair, str | None]) -> tuple[float, float]:
    """Of the pairs that are flagged, the share that is the same problem; of those, the share that is flagged."""
    num_flagged = sum(kind is not None for kind in kinds.values())
    num_same = sum(pair.label == "same" for pair in kinds)
    num_right = sum(kind is not None and pair.label == "same" for pair, kind in kinds.items())
    return num_right / max(num_flagged, 1), num_right / max(num_same, 1)
