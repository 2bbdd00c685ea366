"""The measurement for GPUs runs on CPU, with a model of a few thousand weights."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

SCRIPT = Path(__file__).parents[2] / "examples" / "gpu" / "training.py"


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
