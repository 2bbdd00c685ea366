"""The measurements for GPUs run on CPU, with models of a few thousand weights."""

import json
import os
import socket
import subprocess
import sys
from pathlib import Path

import pytest

FOLDER = Path(__file__).parents[2] / "examples" / "gpu"
SCRIPT = FOLDER / "training.py"
STAGES = ("probe", "models", "data", "serve", "relay", "stop", "grpo", "end")


@pytest.mark.e2e
@pytest.mark.slow
@pytest.mark.timeout(2400)
def test_it_prints_steps_and_an_estimate(pair: Path) -> None:
    options = ["--tokenizer", str(pair / "teacher"), "--shape", "tiny", "--tokens", "256"]
    overrides = ["+relay=warmup_cpu", "data.micro_batch_size_per_gpu=1"]
    ended = subprocess.run(
        [sys.executable, str(SCRIPT), *options, *overrides],
        env=os.environ | {"VERL_PLATFORM": "cpu", "HF_HUB_OFFLINE": "1"},
        capture_output=True,
        text=True,
        timeout=600,
        check=True,
    )
    measured = json.loads(ended.stdout.splitlines()[-1])
    assert (measured["device"], measured["fused kernels"], measured["tokens of a micro-batch"]) == ("cpu", False, 256)
    assert len(measured["steps"]) == 3
    assert all(step["seconds"] > 0 and step["allocated"] > 0 for step in measured["steps"])
    assert "AdamW's copy" in measured["estimate"]["while Adam steps"]


@pytest.mark.e2e
@pytest.mark.slow
@pytest.mark.timeout(2400)
def test_each_stage_of_the_first_light_ends(tmp_path: Path) -> None:
    environment = os.environ | {
        "ON_CPU": "1",
        "OUT": str(tmp_path / "out"),
        "PYTHON": sys.executable,
        "STUDENT_PORT": str(free_port()),
        "TEACHER_PORT": str(free_port()),
    }
    command = ["bash", str(FOLDER / "first_light.sh")]
    try:
        ended = subprocess.run([*command, *STAGES], env=environment, capture_output=True, text=True, timeout=1200)
    finally:
        subprocess.run([*command, "stop", "end"], env=environment, capture_output=True, timeout=60)
    assert ended.returncode == 0, ended.stdout[-4000:] + ended.stderr[-4000:]
    out = tmp_path / "out"
    assert all((out / f"{stage}.done").exists() for stage in STAGES)
    rounds = [json.loads(line) for line in (out / "rounds.jsonl").read_text().splitlines()]
    assert {line["way"] for line in rounds if line["round"] == 1} >= {"offline", "barrier"}
    called = [line for line in rounds if line.get("calls")]
    assert called
    assert all(line["failed"] == 0 and line["cached share"] is not None for line in called)
    table = (out / "grpo" / "table.md").read_text().splitlines()
    assert [line.split()[1] for line in table if line.startswith("| ")] == ["step", ":---", "1", "2"]


def free_port() -> int:
    """A port that no one listens on."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])
