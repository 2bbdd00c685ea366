"""What the measurements on a GPU count and print, without a GPU."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

from relay_verl.policies import make_policy
from relay_verl.types import CallOutcome, CallRecord, RelayStatus, RelayTrajectory, Segment
from tests.helpers.gpu_example import FOLDER, script

scattered = script("scattered")
grpo_table = script("grpo_table")
relay_rate = script("relay_rate")


@pytest.mark.parametrize("share", [0.01, 0.1, 0.5])
def test_the_teacher_writes_its_share(share: float) -> None:
    policy = make_policy(f"scattered:Scattered_{share}", seed=3)
    calls = [policy.next_interruption() for _ in range(4000)]
    student, teacher = sum(call.num_student_tokens for call in calls), sum(call.num_tokens for call in calls)
    assert teacher / (student + teacher) == pytest.approx(share, rel=0.1)


def test_no_share_is_no_call() -> None:
    assert make_policy("scattered:Scattered_0", seed=3).next_interruption() is None


def test_each_step_is_a_row(tmp_path: Path) -> None:
    step = dict.fromkeys(grpo_table.COLUMNS.values(), 2.5) | {"relay/call_ratio": 0.1, "perf/throughput": 4321.0}
    lines = [{"step": 0, "data": {"val/x": 1.0}}, {"step": 1, "data": step}, {"step": 2, "data": step}]
    file = tmp_path / "metrics.jsonl"
    file.write_text("".join(json.dumps(line) + "\n" for line in lines))
    steps = grpo_table.read_steps(file)
    assert len(steps) == 2
    rows = grpo_table.table_of(steps).splitlines()[2:]
    assert [row.split("|")[1].strip() for row in rows] == ["1", "2"]
    assert all("4,321" in row for row in rows)


def test_an_unknown_stage_is_named(tmp_path: Path) -> None:
    ended = subprocess.run(
        ["bash", str(FOLDER / "first_light.sh"), "rely"],
        env={"OUT": str(tmp_path), "PATH": "/usr/bin:/bin", "PYTHON": sys.executable},
        capture_output=True,
        text=True,
        check=False,
    )
    assert ended.returncode == 2
    assert "rely" in ended.stderr


def test_the_cached_share_is_of_what_was_read() -> None:
    first = CallRecord(CallOutcome.SERVED, 32, 32, num_context=100, latency_s=0.5, num_cached=0)
    second = CallRecord(CallOutcome.SERVED, 32, 16, num_context=200, latency_s=1.5, num_cached=150)
    failed = CallRecord(CallOutcome.FAILED, 32)
    student, teacher = Segment("student", [1] * 52), Segment("teacher", [2] * 48)
    trajectory = RelayTrajectory([0], [student, teacher], RelayStatus.COMPLETED, [first, second, failed])
    described = relay_rate.describe_calls([trajectory])
    assert (described["calls"], described["failed"], described["teacher share"]) == (2, 1, 0.48)
    assert (described["cached share"], described["cached share of later calls"]) == (0.5, 0.75)
    assert relay_rate.describe_calls([]) == {"calls": 0, "failed": 0}


def test_a_killed_measurement_keeps_its_rounds(tmp_path: Path) -> None:
    file = tmp_path / "rounds.jsonl"
    relay = {"way": "relay, 10% by the teacher", "seconds": 4.0, "tokens": 1000, "calls": 7}
    offline = {"way": "offline", "seconds": 2.0, "tokens": 1000}
    lines = [relay | {"round": 0}, relay | {"round": 1}, offline | {"round": 1}, relay | {"round": 2, "seconds": 8.0}]
    file.write_text("".join(json.dumps(line) + "\n" for line in lines) + '{"way": "offli')
    assert relay_rate.read_lines(file) == lines
    assert relay_rate.read_lines(tmp_path / "none") == []
    rows = relay_rate.table_of(lines).splitlines()[2:]
    cells = [[cell.strip() for cell in row.strip("|").split("|")] for row in rows]
    assert [row[:2] for row in cells] == [["relay, 10% by the teacher", "2"], ["offline", "1"]]
    assert cells[0][2].endswith("(125 to 250)")
    assert [row[4] for row in cells] == ["7", "–"]
