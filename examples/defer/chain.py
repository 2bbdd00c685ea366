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
        data: questions to label; the pair's if None.
        calibration: questions to calibrate on; every other one of those held out if None.
    """

    def __init__(
        self,
        out: Path,
        pair: Path,
        options: Sequence[str],
        *,
        data: Path | None = None,
        calibration: Path | None = None,
    ):
        self.out = out
        self.pair = pair
        self.options = list(options)
        self.data = data or pair / "train.parquet"
        self.calibration = calibration

    def make_heads(self, names: Sequence[str] = tuple(HEADS)) -> None:
        """Some heads, each with its threshold, and what they are made of."""
        for name in names:
            print(HEADS[name], flush=True)
            self.make_head(name)

    def make_head(self, name: str) -> None:
        """One head with its threshold."""
        match name:
            case "citer_0":
                self.train(name, self.labels(), "relay.defer_training.trains_on_rollouts=false")
            case "citer_1":
                self.train(name, self.labels())
            case "citer_2":
                self.make_head("citer_1")
                self.train(name, self.new_labels())
            case "collm":
                self.train(name, self.labels(), "relay.defer_training.kind=collm")
            case "entropy" if not (self.out / name / INFO_FILE).is_file():
                info = HeadInfo(HeadKind.ENTROPY)
                save_head(self.out / name, make_head(info), info)
        self.calibrate(name)

    def labels(self) -> Path:
        """Labels of iteration 1."""
        labels = self.out / "labels_1.parquet"
        self.call("defer-data", "--data", self.data, "--out", labels, UNSURE)
        return labels

    def new_labels(self) -> Path:
        """Labels of iteration 2, from rollouts under the head of iteration 1."""
        again, head = self.out / "labels_2.parquet", self.out / "citer_1"
        # rollouts use the threshold that was calibrated; the release's 0.95 is for a head trained at its own rate
        threshold = f"relay.defer_training.routed_threshold={read_info(head).threshold:.7f}"
        self.call("defer-data", "--data", self.labels(), "--head", head, "--out", again, threshold)
        return again

    def evaluate_all(self) -> str:
        """What the heads reach on the other questions; gives the table."""
        print("the other questions", flush=True)
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
            tiny = ("--benchmark", "tiny", "--source", f"tiny={self.calibration or self.questions(0)}")
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
    parser.add_argument("--data", type=Path, help="questions to label; the pair's if not given")
    parser.add_argument(
        "--calibration", type=Path, help="questions to calibrate on; half of those held out if not given"
    )
    parser.add_argument(
        "--head", action="append", choices=HEADS, help="only this head and what it is made of; repeatable"
    )
    parser.add_argument("--heads-only", action="store_true", help="evaluate nothing")
    parser.add_argument("overrides", nargs="*", help="changes to the recipe citer_tiny")
    options = parser.parse_args()
    out: Path = options.out.resolve()
    pair: Path = options.pair.resolve() if options.pair else out / "pair"
    os.environ |= {"VERL_PLATFORM": "cpu", "HF_HUB_OFFLINE": "1"}
    if options.pair is None:
        run([sys.executable, str(TINY / "stage_one.py"), "--out", str(pair)])
    out.mkdir(parents=True, exist_ok=True)
    paths = {
        name: path and path.resolve() for name, path in (("data", options.data), ("calibration", options.calibration))
    }
    chain = Chain(out, pair, options.overrides, **paths)
    chain.make_heads(options.head or tuple(HEADS))
    if not options.heads_only and options.head is None:
        print(chain.evaluate_all())


if __name__ == "__main__":
    with interruption.reported("defer"):
        main()
