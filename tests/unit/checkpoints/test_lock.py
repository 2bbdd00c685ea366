"""One writer at a time, in another process: it is named, and leaves nothing behind when it is killed."""

import os
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from omegaconf import OmegaConf

from relay_verl.checkpoints.lock import LOCK_FILE, check_free, hold, release
from relay_verl.errors import JobError, UserError
from relay_verl.files import LockedError, lock
from relay_verl.jobs.formats import JsonLines
from relay_verl.jobs.store import JobStore
from relay_verl.run_config import RunConfig
from relay_verl.trainer import ending

HOLDS = "import sys\nfrom pathlib import Path\nfrom relay_verl.files import lock\nheld = lock(Path(sys.argv[1]))\n"
WAITS = HOLDS + "print('held', flush=True)\nsys.stdin.read()"


@pytest.fixture(autouse=True)
def nothing_stays_held() -> Iterator[None]:
    yield
    release()


@pytest.fixture
def another(tmp_path: Path) -> Iterator[subprocess.Popen[str]]:
    """A process that holds the lock of `run/relay_run.lock`."""
    (tmp_path / "run").mkdir()
    command = [sys.executable, "-c", WAITS, str(tmp_path / "run" / LOCK_FILE)]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == "held\n"
        yield process
        process.kill()


def test_a_second_training_is_refused_with_the_process_and_host_of_the_first(
    another: subprocess.Popen[str], tmp_path: Path
) -> None:
    folder = tmp_path / "run"
    for function in (hold, check_free):
        with pytest.raises(UserError) as error:
            function(folder)
        line = str(error.value)
        assert line.startswith(f"trainer.default_local_dir={folder}: ")
        assert f"process {another.pid} on host {socket.gethostname()}" in line
        assert "\n" not in line
    assert "another training" in line
    assert (folder / LOCK_FILE).read_text().startswith(f"process {another.pid} "), "the refusal changed nothing"


@pytest.mark.parametrize("end", [signal.SIGKILL, signal.SIGTERM])
def test_a_killed_training_leaves_no_lock(another: subprocess.Popen[str], tmp_path: Path, end: signal.Signals) -> None:
    another.send_signal(end)
    another.wait()
    check_free(tmp_path / "run")
    hold(tmp_path / "run")
    assert (tmp_path / "run" / LOCK_FILE).read_text().startswith(f"process {os.getpid()} ")


def test_a_process_that_a_training_started_does_not_hold_its_lock(tmp_path: Path) -> None:
    """Ray's processes outlive a driver that is killed by some seconds."""
    held = lock(tmp_path / "lock")
    with subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE) as child:
        held.close()
        lock(tmp_path / "lock").close()
        child.kill()


def test_a_run_of_a_sweep_gives_the_folder_back(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Ray ends, the folder is free, and the environment is what it was."""
    import ray

    ended: list[bool] = []
    monkeypatch.setattr(ray, "shutdown", lambda: ended.append(True))
    monkeypatch.setitem(sys.modules, "__main__", SimpleNamespace(run_ppo=lambda config: None))
    for _ in range(2):
        monkeypatch.delenv("VERL_FULL_DETERMINISM", raising=False)
        ending.install(dict(os.environ), ends_ray=True)
        hold(tmp_path / "run")
        os.environ["VERL_FULL_DETERMINISM"] = "1"  # as the start of a deterministic run does
        sys.modules["__main__"].run_ppo(None)  # type: ignore[attr-defined]
        assert "VERL_FULL_DETERMINISM" not in os.environ
    assert ended == [True, True]


def test_a_run_that_fails_does_so_too(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def fails(config: Any) -> None:
        raise UserError("no room")

    monkeypatch.setitem(sys.modules, "__main__", SimpleNamespace(run_ppo=fails))
    ending.install(dict(os.environ), ends_ray=False)
    hold(tmp_path / "run")
    with pytest.raises(SystemExit):
        sys.modules["__main__"].run_ppo(None)  # type: ignore[attr-defined]
    hold(tmp_path / "run")


def test_a_folder_that_nobody_writes_to_is_free_and_stays_as_it_is(tmp_path: Path) -> None:
    check_free(tmp_path / "none")
    assert not (tmp_path / "none").exists()
    for trainer in ({"default_local_dir": None}, {}):
        folder = RunConfig(OmegaConf.create({"trainer": trainer})).trainer.folder
        hold(folder)
        check_free(folder)


def test_only_the_first_rank_of_the_warm_up_locks(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "run").mkdir()
    held = lock(tmp_path / "run" / LOCK_FILE)
    monkeypatch.setenv("RANK", "1")
    hold(tmp_path / "run")
    monkeypatch.setenv("RANK", "0")
    with pytest.raises(UserError):
        hold(tmp_path / "run")
    held.close()
    hold(tmp_path / "run")
    hold(tmp_path / "run")  # a second check of the same run
    check_free(tmp_path / "run")


def test_a_disk_that_takes_no_lock_costs_a_line(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "file").write_text("")
    hold(tmp_path / "file" / "run")
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith(f"relay_verl: {tmp_path}/file/run is not locked ")


def test_a_job_names_who_writes_its_file(tmp_path: Path) -> None:
    (tmp_path / "out.jsonl.work").mkdir()
    command = [sys.executable, "-c", WAITS, str(tmp_path / "out.jsonl.work" / "lock")]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        process.stdout.readline()
        with pytest.raises(JobError, match=rf"process {process.pid} on host "):
            JobStore(tmp_path / "out.jsonl", {}, JsonLines()).__enter__()
        process.kill()


def test_a_holder_is_named_even_by_an_empty_file(tmp_path: Path) -> None:
    held = lock(tmp_path / "lock")
    held.truncate(0)
    with pytest.raises(LockedError, match="another process"):
        lock(tmp_path / "lock")
