"""CITER's chain over real vLLM: labels that are a forward pass's own, heads, thresholds, and what they reach."""

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest

from relay_verl.defer.head_folder import read_info
from relay_verl.defer_training.head_training import read_training
from relay_verl.defer_training.label_run import read_labels
from relay_verl.defer_training.labels import LabelSource

pytestmark = [pytest.mark.e2e, pytest.mark.slow, pytest.mark.timeout(3600)]

ROOT = Path(__file__).parents[2]
OPTIONS = ["relay.defer_training.max_epochs=30", "relay.defer_training.num_tries=2"]


@pytest.fixture(scope="module")
def chain(pair: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """What the example leaves of the barely trained pair."""
    out = tmp_path_factory.mktemp("defer")
    run_chain(pair, out)
    return out


def run_chain(pair: Path, out: Path) -> str:
    script = ROOT / "examples" / "defer" / "chain.py"
    command = [sys.executable, str(script), "--out", str(out), "--pair", str(pair), *OPTIONS]
    done = subprocess.run(command, capture_output=True, text=True, timeout=3000)
    assert done.returncode == 0, done.stderr[-3000:]
    return done.stdout


def test_labels_are_those_of_a_forward_pass(chain: Path, pair: Path) -> None:
    import torch
    from transformers import AutoModelForCausalLM

    student = AutoModelForCausalLM.from_pretrained(pair / "student", dtype=torch.float32).eval()
    queries = read_labels(chain / "labels_1.parquet")
    assert queries
    num_tokens = num_equal = 0
    for query in queries[:20]:
        with torch.inference_mode():
            logits = student(torch.tensor([query.prompt_ids + query.reference_ids])).logits[0]
        laws = torch.log_softmax(logits[len(query.prompt_ids) - 1 : -1], dim=-1)
        own = laws.gather(1, torch.tensor(query.reference_ids)[:, None])[:, 0]
        assert query.student_logprobs == pytest.approx(own.tolist(), abs=1e-3)
        num_tokens += len(query.reference_ids)
        num_equal += sum(a == b for a, b in zip(query.student_ids, laws.argmax(-1).tolist(), strict=True))
    assert num_equal >= 0.99 * num_tokens, "but for ties"


def test_iteration_2_changes_rollouts_alone(chain: Path) -> None:
    first, second = (read_labels(chain / f"labels_{number}.parquet") for number in (1, 2))
    assert [query.iteration for query in second] == [2] * len(first)
    for before, after in zip(first, second, strict=True):
        assert (before.reference_ids, before.sources) == (after.reference_ids, after.sources)
        changed = [place for place in range(len(before.values)) if before.values[place] != after.values[place]]
        assert all(before.sources[place] == LabelSource.ROLLOUT for place in changed)


def test_each_head_has_a_threshold_for_its_ratio(chain: Path) -> None:
    for name in ("citer_0", "citer_1", "citer_2", "collm", "entropy"):
        calibration = read_info(chain / name).calibration
        assert calibration is not None
        assert abs(calibration.reached_ratio - calibration.target_ratio) <= 0.1 * calibration.target_ratio
        if name != "entropy":
            assert read_training(chain / name) is not None
            assert (chain / name / "training.png").read_bytes().startswith(b"\x89PNG")
    table = (chain / "table.md").read_text()
    assert all(f"| {name}" in table for name in ("CITER 0", "CITER 1", "CITER 2", "Co-LLM", "entropy"))


def test_the_same_command_again_changes_nothing(chain: Path, pair: Path) -> None:
    before = {path: path.read_bytes() for path in chain.rglob("*.json")}
    run_chain(pair, chain)
    assert {path: path.read_bytes() for path in chain.rglob("*.json")} == before


def test_a_ratio_that_no_threshold_reaches(chain: Path, pair: Path, tmp_path: Path) -> None:
    """Within no tolerance at all; the head stays as it is."""
    head = chain / "citer_1"
    before = (head / "defer_head.json").read_bytes()
    command: list[Any] = [sys.executable, "-m", "relay_verl", "calibrate", head, "--recipe", "citer_tiny"]
    command += ["--out", tmp_path / "out", "--benchmark", "tiny", "--source", f"tiny={chain / 'calibration.parquet'}"]
    command += ["--target-ratio", "0.0123456789", "--tolerance", "0", "--most", "2", "--limit", "6"]
    done = subprocess.run([*map(str, command)], capture_output=True, text=True, timeout=900, env=os.environ)
    assert done.returncode == 1, done.stderr[-2000:]
    assert "the nearest is" in done.stderr and "threshold" in done.stderr
    assert (head / "defer_head.json").read_bytes() == before


def test_a_label_file_has_its_provenance(chain: Path) -> None:
    manifest = json.loads((chain / "labels_1.parquet.manifest.json").read_text())
    assert {"student_sha256", "teacher_sha256", "data", "rollout_tokens"} <= manifest["job"].keys()
    assert manifest["summary"]["num_tokens"] == sum(
        len(query.values) for query in read_labels(chain / "labels_1.parquet")
    )
    assert pq.read_schema(chain / "labels_1.parquet").names[-1] == "defer"
