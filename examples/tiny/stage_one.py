"""What comes before GRPO, on the tiny world, by the commands a real pair takes: warm-up and filter (paper 3.1, 3.2.2).

    python examples/tiny/stage_one.py --out outputs/quickstart/pair [--world plain]

    DIR/warmup.parquet   relay-verl warmup-data: the student's own responses with commands in them
    DIR/student_warm     verl.trainer.sft_trainer +recipe=warmup_tiny
    DIR/train.parquet    relay-verl filter: the questions with the teacher's pass counts

A second run continues where a stopped one ended.
"""

import argparse
import json
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from relay_verl.pipeline import relay_verl, run, warm_up

EXAMPLES = Path(__file__).parent
ONE_THREAD = {"OMP_NUM_THREADS": "1"}
"""Two stages run side by side."""
WARMUP_RATES = {"graded": ("optim.lr=7e-4",)}
"""Where the recipe's rate is too large: of 600 answers learned by heart, those that are held out would be forgotten."""


def variables(pair: Path) -> dict[str, str]:
    """The environment of the tiny world in `pair`."""
    return {"VERL_PLATFORM": "cpu", "RELAY_TINY_DIR": str(pair.resolve()), "HF_HUB_OFFLINE": "1"}


def build_pair(pair: Path, *options: str) -> None:
    """The models and questions, unless they are there."""
    run([sys.executable, str(EXAMPLES / "pretrain.py"), "--out", str(pair), *options], variables(pair) | ONE_THREAD)


def lengths_of(world: str) -> tuple[str, ...]:
    """What a recipe of the tiny world needs for this one; the warm-up's 160 tokens are enough for both."""
    return ("+relay=graded",) if world == "graded" else ()


def make_warm_student(pair: Path, world: str = "plain") -> None:
    """The student that writes commands, unless it is there."""
    student, warm = pair / "student", pair / "student_warm"
    if (warm / "config.json").is_file():
        return
    data, questions = pair / "warmup.parquet", pair / "questions.parquet"
    command = relay_verl("warmup-data", "--recipe", "relay_tiny", "--student", str(student))
    command += ["--data", str(questions), "--out", str(data), *lengths_of(world)]
    run(command, variables(pair) | ONE_THREAD)
    rate = WARMUP_RATES.get(world, ())
    warm_up("warmup_tiny", warm, pair / "warmup", overrides=rate, variables=variables(pair) | ONE_THREAD)


def filter_questions(pair: Path, *overrides: str) -> None:
    """The questions with the teacher's pass counts; `overrides` are those of `relay-verl filter`."""
    questions, out = pair / "questions.parquet", pair / "train.parquet"
    command = relay_verl("filter", "--recipe", "relay_tiny", "--data", str(questions), "--out", str(out), *overrides)
    run(command, variables(pair) | ONE_THREAD)


def warm_up_and_filter(pair: Path, *overrides: str, world: str = "plain") -> None:
    """All that GRPO starts from, unless it is there. The two need nothing of each other and run side by side: much of
    either is waiting for an engine to start."""
    with ThreadPoolExecutor(2) as pool:
        for work in [
            pool.submit(make_warm_student, pair, world),
            pool.submit(filter_questions, pair, *lengths_of(world), *overrides),
        ]:
            work.result()


def measure_warm_up(pair: Path, world: str) -> dict[str, object]:
    """Accuracy without calls and share of commands, before the warm-up and after it."""
    from measuring import load
    from schooling import WORLDS

    stage = WORLDS[world].settings.student
    return {name: stage.measure(*load(pair / name)) for name in ("student", "student_warm")}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, default=Path("outputs/quickstart/pair"), help="where everything goes")
    parser.add_argument("--world", choices=("plain", "graded"), default="plain", help="the task; plain by default")
    parser.add_argument("--steps-scale", default="1.0", help="scales the pre-training of both models")
    parser.add_argument("--filter-samples", type=int, help="responses to a question in the filter")
    parser.add_argument("--measure", action="store_true", help="measure what the warm-up changed")
    options = parser.parse_args()
    pair: Path = options.out.resolve()
    build_pair(pair, "--world", options.world, "--steps-scale", options.steps_scale)
    num_samples = options.filter_samples
    overrides = [f"relay.filter.num_samples={num_samples}"] if num_samples else []
    warm_up_and_filter(pair, *overrides, world=options.world)
    if options.measure:
        print(json.dumps(measure_warm_up(pair, options.world), indent=2))


if __name__ == "__main__":
    main()
