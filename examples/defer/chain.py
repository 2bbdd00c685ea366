"""CITER on the tiny world, from nothing to a calibrated head: iterations 0, 1 and 2, by the commands a real pair takes.

    python examples/defer/chain.py --out outputs/defer

    OUT/pair                  the tiny pair and its questions
    OUT/labels_1.parquet      relay-verl defer-data: references, tokens of both models, rollouts of the student
    OUT/head_0, head_1        relay-verl defer-train: without the rollouts' labels (CITER-S), and with them
    OUT/labels_2.parquet      relay-verl defer-data --head head_1: rollouts of student, head and teacher
    OUT/head_2                the same again
    OUT/calibration           relay-verl calibrate: thresholds on half of the held-out questions
    OUT/results               relay-verl eval: each head on the other half
    OUT/table.md              calibrated ratio against the one reached, and accuracy

A second run continues where a stopped one ended.
"""

import argparse
import os
import sys
from collections.abc import Sequence
from pathlib import Path

import pyarrow.parquet as pq

from relay_verl.defer.head_folder import read_info
from relay_verl.defer.head_info import HeadInfo
from relay_verl.defer_training.calibration import ratio_of
from relay_verl.files import replace_file, replacing
from relay_verl.jobs import interruption
from relay_verl.markdown import markdown_table
from relay_verl.pipeline import relay_verl, run
from relay_verl.report.statistics import accuracy, estimate
from relay_verl.traces.results import read_result

TINY = Path(__file__).parents[1] / "tiny"
RECIPE = "citer_tiny"
ITERATIONS = {0: "the two models' tokens alone", 1: "and rollouts of the student", 2: "and rollouts under head 1"}
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

    def run(self) -> str:
        """All of it; gives the table."""
        calibration, others = self.split()
        labels = self.out / "labels_1.parquet"
        print("1/4 labels of iteration 1", flush=True)
        self.call("defer-data", "--data", self.pair / "train.parquet", "--out", labels, UNSURE)
        print("2/4 heads 0 and 1, and their thresholds", flush=True)
        self.train(0, labels, "relay.defer_training.trains_on_rollouts=false")
        self.train(1, labels)
        for number in (0, 1):
            self.calibrate(number, calibration)
        print("3/4 iteration 2", flush=True)
        again = self.out / "labels_2.parquet"
        # rollouts use the threshold that was calibrated; the release's 0.95 is for a head trained at its own rate
        threshold = f"relay.defer_training.routed_threshold={read_info(self.head(1)).threshold:.7f}"
        self.call("defer-data", "--data", labels, "--head", self.head(1), "--out", again, threshold)
        self.train(2, again)
        self.calibrate(2, calibration)
        print("4/4 the other questions", flush=True)
        for number in ITERATIONS:
            self.evaluate(f"head_{number}", "deferred", others, f"relay.defer.head={self.head(number)}")
        self.evaluate("alone", "student_alone", others, "", "--policy", "teacher_alone")
        table = self.table()
        replace_file(self.out / "table.md", f"{table}\n".encode())
        return table

    def split(self) -> tuple[Path, Path]:
        """The held-out questions, every other one for the calibration."""
        rows = pq.read_table(self.pair / "test.parquet")
        halves = (self.out / "calibration.parquet", self.out / "others.parquet")
        for start, path in enumerate(halves):
            with replacing(path) as temporary:
                pq.write_table(rows.take(list(range(start, rows.num_rows, 2))), temporary)
        return halves

    def head(self, number: int) -> Path:
        """The folder of an iteration's head."""
        return self.out / f"head_{number}"

    def call(self, command: str, *arguments: str | Path) -> None:
        """One command of relay-verl, with the recipe."""
        words = [str(argument) for argument in arguments if str(argument)]
        variables = {"VERL_PLATFORM": "cpu", "RELAY_TINY_DIR": str(self.pair), "HF_HUB_OFFLINE": "1"}
        run(relay_verl(command, "--recipe", RECIPE, *words, *self.options), variables)

    def train(self, number: int, labels: Path, *overrides: str) -> None:
        """Train a head."""
        self.call("defer-train", "--data", labels, "--out", self.head(number), *overrides)

    def calibrate(self, number: int, questions: Path) -> None:
        """Find a head's threshold, unless it has one."""
        if read_info(self.head(number)).calibration is None:
            folder = self.out / "calibration" / f"head_{number}"
            tiny = ("--benchmark", "tiny", "--source", f"tiny={questions}")
            self.call("calibrate", self.head(number), "--out", folder, *tiny)

    def evaluate(self, name: str, policy: str, questions: Path, *words: str) -> None:
        """Ask the other questions."""
        models = ("--student", self.pair / "student", "--teacher", self.pair / "teacher")
        tiny = ("--benchmark", "tiny", "--source", f"tiny={questions}")
        self.call("eval", "--out", self.out / "results" / name, "--policy", policy, *models, *tiny, *words)

    def table(self) -> str:
        """What was calibrated and what was reached."""
        rows = []
        for number, what in ITERATIONS.items():
            info = read_info(self.head(number))
            rows.append([f"{number}: {what}", *_calibrated(info), *self.measured(f"head_{number}", "deferred")])
        for name in ("student_alone", "teacher_alone"):
            rows.append([name.replace("_", " "), "", "", *self.measured("alone", name)])
        header = ["iteration", "threshold", "calibrated", "reached", *(f"{name} right" for name in FAMILIES.values())]
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
    parser.add_argument("overrides", nargs="*", help="changes to the recipe citer_tiny")
    options = parser.parse_args()
    out: Path = options.out.resolve()
    pair: Path = options.pair.resolve() if options.pair else out / "pair"
    os.environ |= {"VERL_PLATFORM": "cpu", "HF_HUB_OFFLINE": "1"}
    if options.pair is None:
        run([sys.executable, str(TINY / "stage_one.py"), "--out", str(pair)])
    out.mkdir(parents=True, exist_ok=True)
    print(Chain(out, pair, options.overrides).run())


if __name__ == "__main__":
    with interruption.reported("defer"):
        main()
