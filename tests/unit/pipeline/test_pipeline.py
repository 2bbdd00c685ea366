"""Stages as processes: a failing one says which command and what its log ends with; a trainer's steps are shown."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

from relay_verl.checkpoints.lock import LOCK_FILE
from relay_verl.errors import UserError
from relay_verl.files import lock
from relay_verl.pipeline import StageError, run, warm_up
from relay_verl.pipeline.training import _watch, read_steps

FAILS = [sys.executable, "-c", "print('loading'); print('no such model'); raise SystemExit(3)"]


def test_a_failed_stage_names_command_code_last_line_and_log(tmp_path: Path) -> None:
    log = tmp_path / "stage.log"
    with pytest.raises(StageError, match=r"ended with code 3: no such model") as caught:
        run(FAILS, log=log)
    assert str(log) in str(caught.value)
    with pytest.raises(StageError, match=r"code 3$"):
        run(FAILS)


def test_an_error_of_ours_counts_more_than_what_ray_prints_behind_it(tmp_path: Path) -> None:
    said = "print('relay_verl: out of memory'); print('(raylet) 4 workers killed'); raise SystemExit(1)"
    with pytest.raises(StageError, match="code 1: relay_verl: out of memory\n"):
        run([sys.executable, "-c", said], log=tmp_path / "stage.log")


def test_a_log_keeps_what_an_earlier_run_said(tmp_path: Path) -> None:
    log = tmp_path / "stage.log"
    for word in ("first", "second"):
        run([sys.executable, "-c", "import os; print(os.environ['WORD'])"], {"WORD": word}, log=log)
    assert log.read_text().split() == ["first", "second"]


def test_steps_done_again_count_once_and_a_line_being_written_is_left(tmp_path: Path) -> None:
    metrics = tmp_path / "metrics.jsonl"
    lines = [{"step": step, "data": {"relay/accuracy": value}} for step, value in ((1, 0.1), (2, 0.2), (2, 0.3))]
    lines.append({"step": 3, "data": {"val/accuracy": 1.0}})
    metrics.write_text("\n".join(map(json.dumps, lines)) + '\n{"step": 4, "da')
    assert [step["relay/accuracy"] for step in read_steps(metrics)] == [0.1, 0.3]
    assert read_steps(tmp_path / "none") == []


def test_off_a_terminal_a_training_is_lines(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    metrics = tmp_path / "metrics.jsonl"
    metrics.write_text(json.dumps({"step": 1, "data": {"relay/accuracy": 0.25, "relay/call_rate": 0.5}}) + "\n")
    with subprocess.Popen([sys.executable, "-c", "import time; time.sleep(2)"]) as process:
        _watch(process, metrics, 4, "relay_real")
    captured = capsys.readouterr()
    assert "\r" not in captured.err and "1/4" in captured.err
    assert "accuracy=0.25" in captured.err and "relay_real: 1 steps" in captured.out


def test_a_warm_up_leaves_the_folder_of_a_running_one(tmp_path: Path) -> None:
    """It starts from its beginning, so it would delete the checkpoints that the other writes, and its lock."""
    checkpoints = tmp_path / "warmup" / "checkpoints"
    checkpoints.mkdir(parents=True)
    with lock(checkpoints / LOCK_FILE), pytest.raises(UserError, match="another training writes there"):
        warm_up("warmup_tiny", tmp_path / "student", tmp_path / "warmup")
    assert (checkpoints / LOCK_FILE).exists()
