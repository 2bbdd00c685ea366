"""How fast a relay writes on one GPU, next to plain generation of as many tokens by vLLM's offline engine.

    python examples/gpu/relay_rate.py --student FOLDER --student-url http://127.0.0.1:8001/v1 \\
        --teacher-url http://127.0.0.1:8002/v1 --out rate.jsonl [--set KEY=VALUE of the offline engine]

Both servers run already. `RelayDecoder` asks them for the responses to GSM8K's questions, with calls of 32 tokens at
random places so that the teacher writes each of `--shares` of the tokens; 0 is the student alone over the same door.
The offline engine has the student's weights and writes responses of the same lengths to the same prompts. All ways take
turns, round after round, so that other work on the machine hits all of them. A way's round is a line of the JSON Lines
file as soon as it has ended, and a run that was killed continues there, after another round of warm-up. Prints a table.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import subprocess
import sys
import time
from collections.abc import Mapping, Sequence
from functools import partial
from pathlib import Path
from statistics import median
from typing import Any

import numpy as np
import yaml
from scattered import Scattered
from transformers import AutoTokenizer

from relay_verl.bench.relay_speed import run_in_lockstep
from relay_verl.bench.timing import Variant
from relay_verl.benchmarks.registry import find_benchmark, load_benchmark
from relay_verl.decoder import RelayConfig, RelayDecoder
from relay_verl.engines.endpoint import EndpointEngine
from relay_verl.markdown import markdown_table
from relay_verl.models.vocabulary import read_vocabulary
from relay_verl.tokenization import chat_ids
from relay_verl.types import CallOutcome, RelayTrajectory

QUESTIONS = Path(__file__).parents[1] / "real" / "gsm8k.jsonl"
SAMPLING = {"temperature": 1.0}


class OfflineEngine:
    """vLLM's `LLM` on the student's weights."""

    def __init__(self, student: str, settings: dict[str, Any]):
        from vllm import LLM

        self._engine = LLM(model=student, generation_config="vllm", **settings)

    def write(self, prompts: Sequence[Sequence[int]], lengths: Sequence[int]) -> list[int]:
        """Write a response of the given length to each prompt; gives the tokens of each."""
        from vllm import SamplingParams

        sampling = [SamplingParams(max_tokens=length, ignore_eos=True, **SAMPLING) for length in lengths]
        outputs = self._engine.generate([{"prompt_token_ids": list(ids)} for ids in prompts], sampling, use_tqdm=False)
        return [len(output.outputs[0].token_ids) for output in outputs]


def describe_calls(trajectories: Sequence[RelayTrajectory]) -> dict[str, float | None]:
    """What the calls of a round did: counts, latency in seconds, the teacher's cached share."""
    calls = [call for trajectory in trajectories for call in trajectory.calls]
    served = [call for call in calls if call.outcome is CallOutcome.SERVED]
    if not served:
        return {"calls": 0, "failed": len(calls)}
    later = [call for trajectory in trajectories for call in trajectory.calls[1:] if call.outcome is CallOutcome.SERVED]
    latencies = [call.latency_s for call in served]
    teacher = sum(trajectory.num_teacher_tokens for trajectory in trajectories)
    return {
        "calls": len(served),
        "failed": sum(call.outcome is CallOutcome.FAILED for call in calls),
        "teacher tokens": teacher,
        "teacher share": round(teacher / sum(trajectory.num_tokens for trajectory in trajectories), 4),
        "latency p50 s": round(float(np.percentile(latencies, 50)), 3),
        "latency p95 s": round(float(np.percentile(latencies, 95)), 3),
        "cached share": cached_share(served),
        "cached share of later calls": cached_share(later),
    }


def cached_share(calls: Sequence[Any]) -> float | None:
    """The share of what the teacher was given that its prefix cache held; None if its server does not say."""
    known = [call for call in calls if call.num_cached is not None]
    read = sum(call.num_context for call in known)
    return round(sum(call.num_cached for call in known) / read, 4) if read else None


def gpu_memory() -> list[str]:
    """What nvidia-smi says of the GPU's memory and of each process on it; empty without a GPU."""
    lines: list[str] = []
    for query in ("--query-gpu=memory.used,memory.total", "--query-compute-apps=pid,used_memory"):
        try:
            asked = subprocess.run(
                ["nvidia-smi", query, "--format=csv,noheader"], capture_output=True, text=True, timeout=20, check=False
            )
        except FileNotFoundError:
            return []
        lines += asked.stdout.splitlines()
    return lines


async def measure(options: argparse.Namespace, offline: OfflineEngine | None) -> list[dict[str, Any]]:
    """Time all ways; gives what the file says, a dict for each way and round."""
    tokenizer = AutoTokenizer.from_pretrained(options.student)
    vocabulary = read_vocabulary(options.student, tokenizer)
    rows = load_benchmark(find_benchmark("gsm8k"), QUESTIONS).rows[: options.responses]
    prompts = [chat_ids(tokenizer, row["prompt"], {}) for row in rows]
    decoder = RelayDecoder(
        EndpointEngine(options.student_url),
        EndpointEngine(options.teacher_url),
        tokenizer,
        RelayConfig(
            max_response_tokens=options.tokens,
            max_calls=None,
            max_tokens_per_call=options.tokens,
            on_teacher_failure="fail",
            vocab_size=vocabulary.size,
            end_ids=vocabulary.end_ids,
        ),
    )
    last: list[RelayTrajectory] = []

    async def relay(share: float) -> list[int]:
        policies = [Scattered(share, seed) for seed in range(len(prompts))]
        last[:] = await asyncio.gather(
            *(
                decoder.run(prompt, sampling=SAMPLING, policy=policy)
                for prompt, policy in zip(prompts, policies, strict=True)
            )
        )
        return [trajectory.num_tokens for trajectory in last]

    async def barrier(share: float) -> list[int]:
        relays = [
            decoder.stream(prompt, sampling=SAMPLING, policy=Scattered(share, seed))
            for seed, prompt in enumerate(prompts)
        ]
        last[:] = await run_in_lockstep(relays)
        return [trajectory.num_tokens for trajectory in last]

    async def plain() -> list[int]:
        assert offline is not None
        lengths = [trajectory.num_tokens for trajectory in last] or [options.tokens] * len(prompts)
        return await asyncio.to_thread(offline.write, prompts, lengths)

    ways: dict[str, Variant] = {f"relay, {share:.0%} by the teacher": partial(relay, share) for share in options.shares}
    if offline is not None:
        ways["offline"] = plain
    if options.barrier:
        ways["barrier"] = partial(barrier, options.shares[-1])

    lines = read_lines(options.out)
    done = {(line["way"], line["round"]) for line in lines}
    for number in range(options.rounds + 1):  # round 0 warms up
        for name, way in ways.items():
            if number and (name, number) in done:
                continue
            started = time.monotonic()
            lengths = await way()
            line = {
                "way": name,
                "round": number,
                "seconds": round(time.monotonic() - started, 3),
                "responses": len(lengths),
                "tokens": sum(lengths),
                **({} if name == "offline" else describe_calls(last)),
                "GPU memory": gpu_memory(),
            }
            with options.out.open("a") as file:
                file.write(json.dumps(line) + "\n")
            lines.append(line)
    return lines


def read_lines(file: Path) -> list[dict[str, Any]]:
    """What earlier runs measured; a line that a kill cut off does not count."""
    if not file.is_file():
        return []
    return [json.loads(line) for line in file.read_text().splitlines() if line.endswith("}")]


def table_of(lines: Sequence[Mapping[str, Any]]) -> str:
    """A row a way: what its counted rounds took, next to the first way's; median and extremes."""
    counted: dict[str, list[Mapping[str, Any]]] = {}
    for line in lines:
        if line["round"]:
            counted.setdefault(line["way"], []).append(line)
    base = median(line["seconds"] / line["tokens"] for line in next(iter(counted.values())))
    rows = []
    for way, rounds in counted.items():
        times = [line["seconds"] / line["tokens"] for line in rounds]
        rates = sorted(1 / seconds for seconds in times)
        rows.append(
            [
                way,
                str(len(rounds)),
                f"{median(rates):,.0f} ({rates[0]:,.0f} to {rates[-1]:,.0f})",
                f"{median(times) / base:.2f}",
                str(rounds[-1].get("calls", "–")),
                str(rounds[-1].get("cached share of later calls", "–")),
            ]
        )
    heading = ["way", "rounds", "tokens/s", "time a token / the first's", "calls", "cached share of later calls"]
    return markdown_table(heading, rows)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--student", required=True, help="folder of the student's model")
    parser.add_argument("--student-url", required=True, help="where it is served")
    parser.add_argument("--teacher-url", required=True, help="where the teacher is served")
    parser.add_argument("--responses", type=int, default=256, help="a round")
    parser.add_argument("--tokens", type=int, default=512, help="of a response")
    parser.add_argument("--shares", type=float, nargs="+", default=[0.0, 0.01, 0.1], help="of the teacher's tokens")
    parser.add_argument("--barrier", action="store_true", help="time the largest share in lock-step, too")
    parser.add_argument("--rounds", type=int, default=3, help="counted; one more warms up")
    parser.add_argument("--set", nargs="*", default=[], help="KEY=VALUE of the offline engine, read as YAML")
    parser.add_argument("--no-offline", action="store_true", help="leave the offline engine out")
    parser.add_argument("--out", type=Path, required=True, help="JSON Lines file, a line a round")
    options = parser.parse_args()
    settings = {key: yaml.safe_load(value) for key, value in (word.split("=", 1) for word in options.set)}
    offline = None
    if not options.no_offline:
        started = time.monotonic()
        offline = OfflineEngine(options.student, settings)
        print(f"the offline engine started in {time.monotonic() - started:.0f} s", file=sys.stderr, flush=True)
    print(table_of(asyncio.run(measure(options, offline))))


if __name__ == "__main__":
    main()
