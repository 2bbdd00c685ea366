"""A command as a child that never outlives this process, with its output in a log file."""

from __future__ import annotations

import asyncio
import contextlib
import re
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path

from relay_verl.serving import child_guard

END_S = 15.0
"""Seconds that a command has to end by itself once it is asked to."""
NUM_LAST_BYTES = 1 << 16
"""End of a log in which the cause of a failure is looked for."""
_CAUSE = re.compile(r"(?:^|[\s:.])(\w*(?:Error|Exception|Exit)): (.+)$")
_RESULT = re.compile(r"root cause|^Engine core initialization failed", re.IGNORECASE)
"""What vLLM says of a failure whose cause stands further up."""
_PROCESS = re.compile(r"^\(\w+ pid=\d+\) *")
"""What vLLM writes in front of a line."""
MAX_CHARS = 300
"""Longest cause: vLLM lists all models that it knows."""
_CONTINUES = re.compile(r"validation errors? for \w+$")
"""Beginning of pydantic's message, whose next line says what is wrong."""


class GuardedProcess:
    """A running command behind a `child_guard`.

    Args:
        process: the guard, whose standard input this object holds.
        log: what the command writes.
    """

    def __init__(self, process: asyncio.subprocess.Process, log: Path):
        self._process = process
        self.log = log

    @classmethod
    async def start(cls, command: Sequence[str], environment: Mapping[str, str], log: Path) -> GuardedProcess:
        """Start `command` with this environment; its output is added to `log`."""
        log.parent.mkdir(parents=True, exist_ok=True)
        with open(log, "ab") as output:
            process = await asyncio.create_subprocess_exec(
                *(sys.executable, child_guard.__file__, *command),
                stdin=asyncio.subprocess.PIPE,
                stdout=output,
                stderr=output,
                env=dict(environment),
                start_new_session=True,  # Ctrl-C is for this process, which then ends its children in order
            )
        return cls(process, log)

    @property
    def pid(self) -> int:
        """The guard's process id."""
        return self._process.pid

    async def wait(self) -> int:
        """The exit code, once the command and all that it started have ended."""
        return await self._process.wait()

    async def end(self, within_s: float = END_S) -> None:
        """Ask the command to end, and kill it with all that it started if it runs for longer."""
        if self._process.returncode is None:
            with contextlib.suppress(ProcessLookupError):
                self._process.terminate()
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(self._process.wait(), within_s)
        await self.kill()

    async def kill(self) -> None:
        """End the command and all that it started at once; a second call does nothing."""
        assert self._process.stdin is not None
        self._process.stdin.close()
        with contextlib.suppress(TimeoutError):
            await asyncio.wait_for(self._process.wait(), 2 * child_guard.KILL_S)


def last_cause(log: Path, start: int = 0) -> str:
    """What a command that failed says of it: the last error in its log that is not the result of another one, or the
    last line.

    Args:
        log: what it wrote.
        start: bytes of the log that are of an earlier command.
    """
    if not log.exists():
        return "it printed nothing"
    with open(log, "rb") as file:
        size = file.seek(0, 2)
        file.seek(max(start, size - NUM_LAST_BYTES))
        lines = [_PROCESS.sub("", line) for line in file.read().decode(errors="replace").strip().splitlines()]
    errors = [(match[1], match[2], number) for number, line in enumerate(lines, 1) if (match := _CAUSE.search(line))]
    causes = [error for error in errors if not _RESULT.search(error[1])] or errors
    if causes:
        kind, text, number = causes[-1]
        more = lines[number] if _CONTINUES.search(text) and number < len(lines) else ""
        lines = [f"{kind}: {text} {more}"]
    cause = " ".join(lines[-1].split()) if lines else "it printed nothing"
    return cause if len(cause) <= MAX_CHARS else f"{cause[:MAX_CHARS]}..."
