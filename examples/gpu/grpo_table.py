"""What the steps of a GRPO training took, next to the estimate of `relay-verl recipes`.

    python examples/gpu/grpo_table.py METRICS.jsonl [--memory GPU.csv] [--config WORDS] [--gpu-gib 79]

METRICS is what verl's `file` logger wrote, GPU.csv what nvidia-smi sampled in MiB during the run, and WORDS a file with
the recipe and the overrides of its command line, one a line.
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path
from typing import Any

from relay_verl.markdown import markdown_table
from relay_verl.recipes.compose import compose_overrides
from relay_verl.recipes.estimate import GpuEstimate, estimate
from relay_verl.run_config import RunConfig

COLUMNS = {
    "step, s": "timing_s/step",
    "writing": "timing_s/gen",
    "old log-prob": "timing_s/old_log_prob",
    "reference": "timing_s/ref",
    "update": "timing_s/update_actor",
    "weights": "timing_s/update_weights",
    "tokens": "perf/total_num_tokens",
    "tokens/s": "perf/throughput",
    "allocated, GiB": "actor/perf/max_memory_allocated_gb",
    "reserved, GiB": "actor/perf/max_memory_reserved_gb",
}
"""Heading of each column and verl's name for it."""
SHOWN = ("relay/", "response_length/mean", "training/rollout_probs_diff_mean", "actor/grad_norm")
"""What else is listed of the last step, by how its name begins."""


def read_steps(file: Path) -> list[dict[str, Any]]:
    """The metrics of each step."""
    steps = [json.loads(line)["data"] for line in file.read_text().splitlines() if line.endswith("}")]
    return [step for step in steps if "timing_s/step" in step]


def table_of(steps: list[dict[str, Any]]) -> str:
    """A row a step."""
    rows = [
        [str(number), *(_number(step.get(name)) for name in COLUMNS.values())] for number, step in enumerate(steps, 1)
    ]
    return markdown_table(["step", *COLUMNS], rows)


def _number(value: Any) -> str:
    if not isinstance(value, (int, float)):
        return "–"
    return f"{value:,.0f}" if abs(value) >= 1000 else f"{value:.2f}"


def describe_estimate(expected: GpuEstimate) -> list[str]:
    """Each phase with its GiB, and what the student's engine has for its cache."""
    lines = [f"estimate {phase.name}: {phase.gib:.1f} GiB" for phase in expected.phases]
    if expected.student is not None:
        lines.append(f"estimate of the student's KV cache: {expected.student.num_tokens:,} tokens")
    return lines


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("metrics", type=Path, help="of verl's file logger")
    parser.add_argument("--memory", type=Path, help="MiB in use, one sample a line")
    parser.add_argument("--config", type=Path, help="the command line's recipe and overrides, one a line")
    parser.add_argument("--gpu-gib", type=float, default=79.0, help="GiB of the GPU for programs")
    options = parser.parse_args()
    steps = read_steps(options.metrics)
    print(table_of(steps))
    for name, value in sorted(steps[-1].items()):
        if name.startswith(SHOWN):
            print(f"- {name}: {value:.4g}")
    if options.memory is not None and options.memory.is_file():
        samples = [float(line) for line in options.memory.read_text().split() if line.replace(".", "").isdigit()]
        if samples:
            print(f"- most memory in use on the GPU: {max(samples) / 1024:.1f} GiB in {len(samples)} samples")
    if options.config is not None:
        run = RunConfig(compose_overrides(options.config.read_text().splitlines()))
        print(*(f"- {line}" for line in describe_estimate(estimate(run, options.gpu_gib))), sep="\n")


if __name__ == "__main__":
    main()
