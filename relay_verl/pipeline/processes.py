"""One stage is one command, as a user would type it, in a process of its own."""

from __future__ import annotations

import contextlib
import os
import shlex
import subprocess
import sys
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

from relay_verl.recipes.grammar import override

INTERRUPT_S = 30.0
"""Seconds that an interrupted command has to end by itself."""
NUM_LAST_LINES = 50
"""Lines at the end of a log among which an error of ours is looked for."""


class StageError(SystemExit):
    """A command that failed; it ends a script with its message, which names the log."""


def relay_verl(*arguments: str) -> list[str]:
    """The command line of `relay-verl`."""
    return [sys.executable, "-m", "relay_verl", *arguments]


def trainer_folders(checkpoints: Path, folder: Path) -> list[str]:
    """The overrides by which a trainer of verl's writes its checkpoints and Hydra's files there, whatever the names."""
    return [override("trainer.default_local_dir", checkpoints), override("hydra.run.dir", folder / "hydra")]


def run(command: Sequence[str], variables: Mapping[str, str] = {}, *, log: Path | None = None) -> None:
    """Run a command.

    Args:
        command: program and arguments.
        variables: environment variables to add.
        log: file that its output is added to; None leaves it on the terminal.

    Raises:
        StageError: it ended with a code other than 0.
    """
    environment = os.environ | dict(variables)
    with open(log or os.devnull, "a") as file:
        output = file if log else None
        process = subprocess.Popen(command, env=environment, stdout=output, stderr=output and subprocess.STDOUT)
        with ending_with(process):
            process.wait()
    if process.returncode:
        raise StageError(failure(command, process.returncode, log))


@contextlib.contextmanager
def ending_with(process: subprocess.Popen[bytes]) -> Iterator[None]:
    """Ctrl-C reaches a command and its children alike: give them time to save and to stop what they started."""
    try:
        yield
    except KeyboardInterrupt:
        with contextlib.suppress(subprocess.TimeoutExpired):
            process.wait(INTERRUPT_S)
        raise
    finally:
        if process.poll() is None:
            process.kill()


def failure(command: Sequence[str], code: int, log: Path | None) -> str:
    """What to say of a command that ended with `code`."""
    name = shlex.join(command[1:] if command[0] == sys.executable else command)
    if log is None:
        return f"{name} ended with code {code}"
    lines = log.read_text(errors="replace").strip().splitlines() if log.exists() else []
    # what we say of a failure may stand before what Ray prints while it shuts down
    ours = [line for line in lines[-NUM_LAST_LINES:] if line.startswith("relay_verl: ")]
    last = (ours or lines or ["it printed nothing"])[-1]
    return f"{name} ended with code {code}: {last}\n{log} is its log"
