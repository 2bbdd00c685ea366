"""Ctrl-C: a job keeps what is finished and says so; a training names the checkpoint."""

import os
import signal
import subprocess
import sys
import types
from pathlib import Path

import pytest
from omegaconf import OmegaConf

from relay_verl.checkpoints.integrity import POINTER_FILE, kept_in, last_saved
from relay_verl.jobs import interruption
from relay_verl.pipeline.processes import ending_with
from relay_verl.trainer import ending
from relay_verl.trainer.step_line import install, line_of_step
from tests.helpers.errors import names

JOB = """
import asyncio, signal, sys
from pathlib import Path
from relay_verl.jobs import interruption
from relay_verl.jobs import Job, run_job
from relay_verl.jobs.formats import JsonLines

signal.signal(signal.SIGINT, signal.default_int_handler)  # a shell's background job is started without it

async def process(row):
    if row["number"] >= 3 and "slow" in sys.argv:
        print("waiting", flush=True)
        await asyncio.sleep(600)
    return row["number"]

job = Job({"kind": "test"}, JsonLines(), process, lambda row, result: [{"number": result}], max_concurrency=1)
queries = [(str(number), {"number": number}) for number in range(5)]
try:
    print(asyncio.run(run_job(job, queries, len(queries), Path(sys.argv[1])))["num_resumed"])
except KeyboardInterrupt as error:
    print(interruption.explain_interruption(error))
    sys.exit(interruption.CODE)
"""


def test_an_interrupted_job_says_what_is_kept_and_continues(tmp_path: Path) -> None:
    command = [sys.executable, "-c", JOB, str(tmp_path / "out.jsonl")]
    process = subprocess.Popen([*command, "slow"], stdout=subprocess.PIPE, text=True)
    assert process.stdout is not None
    assert process.stdout.readline() == "waiting\n"
    process.send_signal(signal.SIGINT)
    said, _ = process.communicate(timeout=120)
    assert process.returncode == 130
    work = tmp_path / "out.jsonl.work"
    assert names(said, "interrupted: 3 of 5 queries ", work)
    assert said.count("\n") == 1
    done = subprocess.run(command, capture_output=True, text=True, timeout=120)
    assert done.stdout == "3\n", "what was saved is not asked again"


def checkpoint(folder: Path, step: int) -> Path:
    (folder / f"global_step_{step}" / "actor").mkdir(parents=True)
    return folder / f"global_step_{step}"


def test_the_checkpoint_that_is_kept(tmp_path: Path) -> None:
    assert last_saved(tmp_path) is None
    assert "no checkpoint was saved" in kept_in(tmp_path)
    checkpoint(tmp_path, 20)
    unfinished = checkpoint(tmp_path, 40)
    (tmp_path / POINTER_FILE).write_text("20")
    assert last_saved(tmp_path) == tmp_path / "global_step_20", "a save that did not end does not count"
    assert str(tmp_path / "global_step_20") in kept_in(tmp_path) and "the same command resumes" in kept_in(tmp_path)
    assert "resumes" not in kept_in(tmp_path, can_resume=False)
    (tmp_path / POINTER_FILE).write_text("40")
    assert last_saved(tmp_path) == unfinished
    (tmp_path / POINTER_FILE).write_text("60")
    assert last_saved(tmp_path) is None


@pytest.mark.parametrize("mode", ["auto", "disable"])
def test_an_interrupted_training_is_one_line_with_its_checkpoint(
    mode: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def run_ppo(config: object) -> None:
        raise KeyboardInterrupt

    saved = checkpoint(tmp_path, 20)
    (tmp_path / POINTER_FILE).write_text("20")
    main = types.ModuleType("__main__")
    main.run_ppo = run_ppo  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, "__main__", main)
    ending.install(dict(os.environ), ends_ray=False)
    with pytest.raises(SystemExit) as end:
        main.run_ppo(OmegaConf.create({"trainer": {"default_local_dir": str(tmp_path), "resume_mode": mode}}))  # type: ignore[attr-defined]
    assert end.value.code == interruption.CODE
    said = capsys.readouterr().err
    assert said.startswith("relay_verl: interrupted: ") and said.count("\n") == 1
    assert str(saved) in said and ("resumes" in said) == (mode == "auto")


def test_an_interrupted_stage_has_time_to_end() -> None:
    code = (
        "import signal, time; signal.signal(signal.SIGINT, lambda *_: exit(7)); print('up', flush=True); time.sleep(99)"
    )
    process = subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE)
    assert process.stdout is not None
    process.stdout.readline()
    with pytest.raises(KeyboardInterrupt), ending_with(process):
        process.send_signal(signal.SIGINT)  # as the terminal does
        raise KeyboardInterrupt
    assert process.returncode == 7, "it was not killed"


# ---- a line per step ----


def test_the_line_of_a_step() -> None:
    step = {"relay/accuracy": 0.617, "relay/call_rate": 1 / 3, "relay/call_ratio": 0.04, "timing_s/step": 7.12}
    line = line_of_step(step, 12)
    assert line is not None
    for part in ("step 12:", "61.7%", "33.3%", "4.0%", "7.1 s"):
        assert part in line
    assert len(line) < 140
    assert line_of_step({"val-core/tiny/acc": 1.0}, 0) is None
    assert line_of_step({"relay/accuracy": 0.5}, 1) == "relay_verl: step 1: accuracy 50.0%"


def test_verls_tracking_prints_it(capsys: pytest.CaptureFixture[str]) -> None:
    from verl.utils import tracking

    install(tracking)
    install(tracking)  # a second call does nothing
    logger = tracking.Tracking("project", "experiment", ["console"])
    logger.log(data={"relay/accuracy": 0.5, "relay/call_rate": 0.25, "timing_s/step": 3.0}, step=2)
    logger.log(data={"val-core/acc": 0.5}, step=2)
    assert capsys.readouterr().err.count("relay_verl: step 2: accuracy 50.0%, 25.0% of responses call, 3.0 s\n") == 1
