"""What comes before GRPO, on the tiny world, by the commands a real pair takes: warm-up and filter (paper 3.1, 3.2.2).

    python examples/tiny/stage_one.py --out outputs/quickstart/pair

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


def variables(pair: Path) -> dict[str, str]:
    """The environment of the tiny world in `pair`."""
    return {"VERL_PLATFORM": "cpu", "RELAY_TINY_DIR": str(pair.resolve()), "HF_HUB_OFFLINE": "1"}


def build_pair(pair: Path, *options: str) -> None:
    """The models and questions, unless they are there."""
    run([sys.executable, str(EXAMPLES / "pretrain.py"), "--out", str(pair), *options], variables(pair) | ONE_THREAD)


def make_warm_student(pair: Path) -> None:
    """The student that writes commands, unless it is there."""
    student, warm = pair / "student", pair / "student_warm"
    if (warm / "config.json").is_file():
        return
    data, questions = pair / "warmup.parquet", pair / "questions.parquet"
    command = relay_verl("warmup-data", "--recipe", "relay_tiny", "--student", str(student))
    run([*command, "--data", str(questions), "--out", str(data)], variables(pair) | ONE_THREAD)
    warm_up("warmup_tiny", warm, pair / "warmup", variables=variables(pair) | ONE_THREAD)


def filter_questions(pair: Path, *overrides: str) -> None:
    """The questions with the teacher's pass counts; `overrides` are those of `relay-verl filter`."""
    questions, out = pair / "questions.parquet", pair / "train.parquet"
    command = relay_verl("filter", "--recipe", "relay_tiny", "--data", str(questions), "--out", str(out), *overrides)
    run(command, variables(pair) | ONE_THREAD)


def warm_up_and_filter(pair: Path, *overrides: str) -> None:
    """All that GRPO starts from, unless it is there. The two need nothing of each other and run side by side: much of
    either is waiting for an engine to start."""
    with ThreadPoolExecutor(2) as pool:
        for work in [pool.submit(make_warm_student, pair), pool.submit(filter_questions, pair, *overrides)]:
            work.result()


def measure_warm_up(pair: Path) -> dict[str, object]:
    """Accuracy without calls and share of commands, before the warm-up and after it."""
    import pretrain
    import torch
    from transformers import AutoModelForCausalLM, AutoTokenizer

    measured = {}
    for name in ("student", "student_warm"):
        model = AutoModelForCausalLM.from_pretrained(pair / name, dtype=torch.float32)
        torch.manual_seed(0)
        measured[name] = pretrain.measure(model.eval(), AutoTokenizer.from_pretrained(pair / name))
    return measured


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, default=Path("outputs/quickstart/pair"), help="where everything goes")
    parser.add_argument("--steps-scale", default="1.0", help="scales the pre-training of both models")
    parser.add_argument("--filter-samples", type=int, help="responses to a question in the filter")
    parser.add_argument("--measure", action="store_true", help="measure what the warm-up changed")
    options = parser.parse_args()
    pair: Path = options.out.resolve()
    build_pair(pair, "--steps-scale", options.steps_scale)
    num_samples = options.filter_samples
    warm_up_and_filter(pair, *([f"relay.filter.num_samples={num_samples}"] if num_samples else []))
    if options.measure:
        print(json.dumps(measure_warm_up(pair), indent=2))


if __name__ == "__main__":
    main()
