"""No process outlives the one that had it started, however that ends."""

import os
import signal
import subprocess
import sys
from pathlib import Path

import psutil
import pytest

from relay_verl.serving.guarded_process import last_cause

COMMAND = """
import subprocess, sys, time
escaped = "import signal, time; signal.signal(signal.SIGTERM, signal.SIG_IGN); print(1, flush=True); time.sleep(600)"
child = f"import subprocess, sys; subprocess.Popen([sys.executable, '-c', {escaped!r}], start_new_session=True)"
subprocess.run([sys.executable, "-c", child])
time.sleep(600)
"""
"""Starts a process in a session of its own that ignores SIGTERM, and whose parent then ends."""
PARENT = """
import asyncio, os, sys
from pathlib import Path
from relay_verl.serving.guarded_process import GuardedProcess

async def main():
    process = await GuardedProcess.start([sys.executable, "-c", sys.argv[2]], os.environ, Path(sys.argv[1]))
    print(process.pid, flush=True)
    if sys.stdin.readline():
        await process.end(0.1)

asyncio.Runner(loop_factory=LOOP).run(main())
"""
LOOPS = {"asyncio": "asyncio.new_event_loop", "uvloop": "__import__('uvloop').new_event_loop"}
DEADLINE_S = 60.0


@pytest.mark.parametrize("loop", LOOPS)
@pytest.mark.parametrize("end", ["killed", "orderly"])
def test_nothing_is_left(tmp_path: Path, end: str, loop: str) -> None:
    log = tmp_path / "logs" / "x.log"
    program = PARENT.replace("LOOP", LOOPS[loop])
    arguments = [sys.executable, "-c", program, str(log), COMMAND]
    with subprocess.Popen(arguments, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as parent:
        assert parent.stdin and parent.stdout
        guard = psutil.Process(int(parent.stdout.readline()))
        while not (log.exists() and log.read_text()):  # the escaped process runs
            assert parent.poll() is None
        processes = [guard, *guard.children(recursive=True)]
        assert len(processes) == 3
        if end == "killed":
            os.kill(parent.pid, signal.SIGKILL)
        else:
            parent.stdin.write("end\n")
            parent.stdin.flush()
        _, alive = psutil.wait_procs(processes, DEADLINE_S)
        assert not alive


EARLIER = "ValueError: of an earlier start\n"


@pytest.mark.parametrize(
    ("log", "cause"),
    [
        ("", "it printed nothing"),
        ("a\nb\n", "b"),
        ("(EngineCore pid=7) ERROR [core.py:1] ValueError: too long: 9\nbye\n", "ValueError: too long: 9"),
        (f"ValueError: {'x' * 1000}\n", f"ValueError: {'x' * 288}..."),
        (
            "torch.OutOfMemoryError: CUDA out of memory\nRuntimeError: Engine core initialization failed. See above\n",
            "OutOfMemoryError: CUDA out of memory",
        ),
        (
            "(APIServer pid=7) ValidationError: 1 validation error for X\n(APIServer pid=7)   Value error, no model\n",
            "ValidationError: 1 validation error for X Value error, no model",
        ),
    ],
)
def test_the_cause_is_told_from_its_results(tmp_path: Path, log: str, cause: str) -> None:
    file = tmp_path / "log"
    file.write_text(EARLIER + log)
    assert last_cause(file, len(EARLIER)) == cause


def test_a_log_that_is_not_there_says_nothing(tmp_path: Path) -> None:
    assert last_cause(tmp_path / "log") == "it printed nothing"
