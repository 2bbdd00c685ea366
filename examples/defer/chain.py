"""Defer heads on the tiny world, from nothing to calibrated: CITER's iterations 0, 1 and 2, Co-LLM and entropy, by the
commands a real pair takes.

    python examples/defer/chain.py --out outputs/defer

    OUT/pair                  the tiny pair and its questions
    OUT/labels_1.parquet      relay-verl defer-data: references, tokens of both models, rollouts of the student
    OUT/citer_0, citer_1      relay-verl defer-train: without the rollouts' labels (CITER-S), and with them
    OUT/labels_2.parquet      relay-verl defer-data --head citer_1: rollouts of student, head and teacher
    OUT/citer_2               the same again
    OUT/collm, entropy        Co-LLM's head, from labels_1; the head without weights
    OUT/calibration           relay-verl calibrate: thresholds on half of the held-out questions
    OUT/results               relay-verl eval: each head on the other half
    OUT/table.md              calibrated ratio against the one reached, and accuracy

A second run continues where a stopped one ended. With --heads-only it ends after the thresholds.
"""

import argparse
import os
import sys
from collections.abc import Sequence
from pathlib import Path

import pyarrow.parquet as pq

from relay_verl.defer.head_folder import INFO_FILE, read_info, save_head
from relay_verl.defer.head_info import HeadInfo, HeadKind
from relay_verl.defer.heads import make_head
from relay_verl.defer_training.calibration import ratio_of
from relay_verl.files import replace_file, replacing
from relay_verl.jobs import interruption
from relay_verl.markdown import markdown_table
from relay_verl.pipeline import relay_verl, run
from relay_verl.report.statistics import accuracy, estimate
from relay_verl.traces.results import read_result

TINY = Path(__file__).parents[1] / "tiny"
RECIPE = "citer_tiny"
HEADS = {
    "citer_0": "CITER 0: the two models' tokens alone",
    "citer_1": "CITER 1: and rollouts of the student",
    "citer_2": "CITER 2: and rollouts under head 1",
    "collm": "Co-LLM",
    "entropy": "entropy",
}
UNSURE = "relay.teacher.temperature=1.6"
"""Of the references: at less, none of them has a token that neither model would write, and no rollout is needed."""
FAMILIES = {"tiny/add": "+", "tiny/mul": "*", "tiny/hash": "#"}


class Chain:
    """The stages, in the folder `out`; each leaves what is there already.

    Args:
        out: the folder.
        pair: folder of the tiny pair.
        options: overrides of the recipe.
    """

    def __init__(self, out: Path, pair: Path, options: Sequence[str]):
        self.out = out
        self.pair = pair
        self.options = list(options)

    def make_heads(self) -> None:
        """Every head, with its threshold."""
        labels, again = self.out / "labels_1.parquet", self.out / "labels_2.parquet"
        print("1/4 labels of iteration 1", flush=True)
        self.call("defer-data", "--data", self.pair / "train.parquet", "--out", labels, UNSURE)
        print("2/4 heads that need no more, and their thresholds", flush=True)
        self.train("citer_0", labels, "relay.defer_training.trains_on_rollouts=false")
        self.train("citer_1", labels)
        self.train("collm", labels, "relay.defer_training.kind=collm")
        if not (self.out / "entropy" / INFO_FILE).is_file():
            info = HeadInfo(HeadKind.ENTROPY)
            save_head(self.out / "entropy", make_head(info), info)
        for name in ("citer_0", "citer_1", "collm", "entropy"):
            self.calibrate(name)
        print("3/4 CITER's iteration 2", flush=True)
        # rollouts use the threshold that was calibrated; the release's 0.95 is for a head trained at its own rate
        threshold = f"relay.defer_training.routed_threshold={read_info(self.out / 'citer_1').threshold:.7f}"
        self.call("defer-data", "--data", labels, "--head", self.out / "citer_1", "--out", again, threshold)
        self.train("citer_2", again)
        self.calibrate("citer_2")

    def evaluate_all(self) -> str:
        """What the heads reach on the other questions; gives the table."""
        print("4/4 the other questions", flush=True)
        for name in HEADS:
            self.evaluate(name, "deferred", f"relay.defer.head={self.out / name}")
        self.evaluate("alone", "student_alone", "", "--policy", "teacher_alone")
        table = self.table()
        replace_file(self.out / "table.md", f"{table}\n".encode())
        return table

    def questions(self, half: int) -> Path:
        """The held-out questions, every other one: 0 for the calibration, 1 the others."""
        path = self.out / ("calibration.parquet", "others.parquet")[half]
        rows = pq.read_table(self.pair / "test.parquet")
        with replacing(path) as temporary:
            pq.write_table(rows.take(list(range(half, rows.num_rows, 2))), temporary)
        return path

    def call(self, command: str, *arguments: str | Path) -> None:
        """One command of relay-verl, with the recipe."""
        words = [str(argument) for argument in arguments if str(argument)]
        variables = {"VERL_PLATFORM": "cpu", "RELAY_TINY_DIR": str(self.pair), "HF_HUB_OFFLINE": "1"}
        run(relay_verl(command, "--recipe", RECIPE, *words, *self.options), variables)

    def train(self, name: str, labels: Path, *overrides: str) -> None:
        """Train a head."""
        self.call("defer-train", "--data", labels, "--out", self.out / name, *overrides)

    def calibrate(self, name: str) -> None:
        """Find a head's threshold, unless it has one."""
        if read_info(self.out / name).calibration is None:
            tiny = ("--benchmark", "tiny", "--source", f"tiny={self.questions(0)}")
            self.call("calibrate", self.out / name, "--out", self.out / "calibration" / name, *tiny)

    def evaluate(self, name: str, policy: str, *words: str) -> None:
        """Ask the other questions."""
        models = ("--student", self.pair / "student", "--teacher", self.pair / "teacher")
        tiny = ("--benchmark", "tiny", "--source", f"tiny={self.questions(1)}")
        self.call("eval", "--out", self.out / "results" / name, "--policy", policy, *models, *tiny, *words)

    def table(self) -> str:
        """What was calibrated and what was reached."""
        rows = []
        for name, what in HEADS.items():
            rows.append([what, *_calibrated(read_info(self.out / name)), *self.measured(name, "deferred")])
        for name in ("student_alone", "teacher_alone"):
            rows.append([name.replace("_", " "), "", "", *self.measured("alone", name)])
        header = ["head", "threshold", "calibrated", "reached", *(f"{name} right" for name in FAMILIES.values())]
        return markdown_table(header, rows)

    def measured(self, name: str, policy: str) -> list[str]:
        """Ratio with its interval and accuracy by family, of one results folder."""
        records = list(read_result(self.out / "results" / name / policy).records)
        reached = ratio_of(records)
        shares = [estimate(accuracy([records], [family])).value for family in FAMILIES]
        return [_interval(reached.value, reached.low, reached.high), *(f"{share:.0%}" for share in shares)]


def _calibrated(info: HeadInfo) -> tuple[str, str]:
    """Threshold and calibrated ratio."""
    calibration = info.calibration
    assert calibration is not None and calibration.interval is not None
    return f"{info.threshold:g}", _interval(calibration.reached_ratio, *calibration.interval)


def _interval(value: float, low: float, high: float) -> str:
    return f"{value:.2%} ({low:.2%} to {high:.2%})"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, default=Path("outputs/defer"), help="where everything goes")
    parser.add_argument("--pair", type=Path, help="folder of a tiny pair with its filtered data; built if not given")
    parser.add_argument("--heads-only", action="store_true", help="evaluate nothing")
    parser.add_argument("overrides", nargs="*", help="changes to the recipe citer_tiny")
    options = parser.parse_args()
    out: Path = options.out.resolve()
    pair: Path = options.pair.resolve() if options.pair else out / "pair"
    os.environ |= {"VERL_PLATFORM": "cpu", "HF_HUB_OFFLINE": "1"}
    if options.pair is None:
        run([sys.executable, str(TINY / "stage_one.py"), "--out", str(pair)])
    out.mkdir(parents=True, exist_ok=True)
    chain = Chain(out, pair, options.overrides)
    chain.make_heads()
    if not options.heads_only:
        print(chain.evaluate_all())


if __name__ == "__main__":
    with interruption.reported("defer"):
        main()
