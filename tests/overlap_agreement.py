"""How far the overlap check agrees with labelled pairs of questions: `python tests/overlap_agreement.py`.

Prints Markdown: pairs flagged by label and look, precision and recall of the label `same`, and every pair that is
judged otherwise. `--pairs` reads another file of the layout that `data/overlap/README.md` describes.
"""

import argparse
import json
from collections import Counter
from pathlib import Path

from helpers.overlap_pairs import PAIRS_FILE, Pair, judge, precision_and_recall

LOOKS = ("exact", "ngram", "lcs", None)


def print_report(pairs: list[Pair]) -> None:
    kinds = judge(pairs)
    print("| label | pairs | exact | ngram | lcs | not flagged |\n|---|--:|--:|--:|--:|--:|")
    for label in dict.fromkeys(pair.label for pair in pairs):
        counts = Counter(kind for pair, kind in kinds.items() if pair.label == label)
        print(f"| {label} | {counts.total()} | {' | '.join(str(counts[look]) for look in LOOKS)} |")
    precision, recall = precision_and_recall(kinds)
    print(f"\nprecision {precision:.3f}, recall {recall:.3f}\n")
    print("| training | evaluation | label | flagged |\n|---|---|---|---|")
    for pair, kind in kinds.items():
        if (kind is not None) != (pair.label == "same"):
            print(f"| {pair.training} | {pair.evaluation} | {pair.label} | {kind or 'no'} |")


def main() -> None:
    parser = argparse.ArgumentParser(description="How far the overlap check agrees with labelled pairs of questions.")
    parser.add_argument("--pairs", type=Path, default=PAIRS_FILE, help="JSON Lines file of labelled pairs")
    with open(parser.parse_args().pairs, encoding="utf-8") as lines:
        print_report([Pair(**json.loads(line)) for line in lines])


if __name__ == "__main__":
    main()
