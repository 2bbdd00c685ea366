"""`relay-verl eval` over real vLLM under every kind of policy: killed and resumed, and the same again uninterrupted."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from relay_verl.traces.records import ResponseRecord
from relay_verl.traces.results import read_result
from tests.helpers.killing import finished, kill_when

pytestmark = [pytest.mark.e2e, pytest.mark.slow, pytest.mark.timeout(2400)]

TIMES = {"started_at", "latency_s"}
POLICIES = ("learned", "random_0.05", "router_0.5", "teacher_free", "teacher_alone")
NUM_QUESTIONS = 30
"""The student calls in a quarter of its responses, so that some calls are certain."""
KILL_AFTER = 12


def command(pair: Path, out: Path, *options: str) -> list[str]:
    models = ["--student", str(pair / "student_warm"), "--teacher", str(pair / "teacher")]
    what = ["--benchmark", "tiny", "--recipe", "relay_tiny", "--out", str(out)]
    return [sys.executable, "-m", "relay_verl", "eval", *models, *what, *options]


def run(arguments: list[str]) -> str:
    environment = os.environ | {"OMP_NUM_THREADS": "1"}
    done = subprocess.run(arguments, env=environment, capture_output=True, text=True, timeout=800)
    assert done.returncode == 0, done.stderr[-3000:]
    return done.stdout


def without_times(record: ResponseRecord) -> dict:
    plain = {name: value for name, value in vars(record).items() if name not in TIMES}
    calls = [{name: value for name, value in call.items() if name not in TIMES} for call in record.calls]
    return {**plain, "calls": calls}


def test_killed_and_resumed_it_is_the_uninterrupted_one_but_for_times(pair: Path, tmp_path: Path) -> None:
    """Deterministic, and sampled, so that the warmed-up student calls; it is killed under the first policy."""
    options = ["--deterministic", "--limit", str(NUM_QUESTIONS), "--temperature", "1.0"]
    for policy in POLICIES:
        options += ["--policy", policy]
    killed, whole = tmp_path / "killed", tmp_path / "whole"
    arguments = command(pair, killed, *options)
    work = killed / "learned" / "responses.jsonl.work"
    with (tmp_path / "log").open("wb") as log:
        process = subprocess.Popen(arguments, env=os.environ | {"OMP_NUM_THREADS": "1"}, stdout=log, stderr=log)
        try:
            kill_when(process, work, KILL_AFTER)
        finally:
            process.terminate()
    before = {key: json.loads(text) for key, text in finished(work).items()}
    printed = run(arguments)
    run(command(pair, whole, *options))
    records = {policy: list(read_result(killed / policy).records) for policy in POLICIES}
    for policy, mine in records.items():
        theirs = read_result(whole / policy).records
        assert [without_times(record) for record in mine] == [without_times(record) for record in theirs], policy
        assert len({record.id for record in mine}) == len(mine) == NUM_QUESTIONS
        assert policy in printed
    assert read_result(killed / "learned").manifest["num_resumed"] == len(before) >= KILL_AFTER
    kept = {f"tiny/{record.id}/{record.sample}": json.loads(record.to_json()) for record in records["learned"]}
    assert before.items() <= kept.items(), "what was finished stays as it was, times included"
    check_policies(records)


def check_policies(records: dict[str, list[ResponseRecord]]) -> None:
    """Who wrote what under each of them."""
    served = [call for record in records["learned"] for call in record.calls if call["outcome"] == "served"]
    assert served, "the warmed-up student calls when sampled"
    assert all(call["has_command"] and call["num_context"] > 0 for call in served)
    assert {call["num_cached"] for call in served} <= {0, None}, "no prefix cache in this mode"
    for record in records["teacher_free"]:
        assert "<call>" not in record.text
        assert record.num_teacher_tokens == 0
    assert all(record.call_ratio == 1.0 for record in records["teacher_alone"])
    assert {record.call_ratio for record in records["router_0.5"]} == {0.0, 1.0}
    forced = [call for record in records["random_0.05"] for call in record.calls]
    assert forced
    assert not any(call["has_command"] for call in forced)
    assert max(call["num_delivered"] for call in forced) <= 6, "the recipe's cap"
