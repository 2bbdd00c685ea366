"""How the worker processes of `relay_verl.grading.math_worker` are started, asked, ended and replaced."""

from __future__ import annotations

import json
import logging
import os
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

logger = logging.getLogger(__name__)

STALL_FACTOR = 20.0
"""How many times its processor time a question may take by the clock; past that, the worker is stopped, not slow."""


class WorkerLostError(Exception):
    """The worker process failed before it replied."""

    def __init__(self, reason: str, *, has_started: bool) -> None:
        super().__init__(reason)
        self.has_started = has_started
        """Whether it had begun on the question; if not, the question is innocent of its death."""


class _Worker:
    """One worker process, and the socket that is its stdin and stdout. Used by one thread at a time."""

    def __init__(self, start_timeout_s: float) -> None:
        self._socket, child_socket = socket.socketpair()
        self._received = b""
        # A socket, not two pipes: its timeouts cover writing too, and do not limit the number of open files.
        with child_socket:
            self.process = subprocess.Popen(
                [sys.executable, "-m", "relay_verl.grading.math_worker"],
                stdin=child_socket.fileno(),
                stdout=child_socket.fileno(),
                env=_worker_env(),
                cwd="/",  # -m looks in the working directory first
                start_new_session=True,  # a Ctrl-C is for the parent
            )
        try:
            deadline = time.monotonic() + start_timeout_s
            while not self._receive(deadline, has_started=False).get("is_ready"):
                pass
        except TimeoutError as error:
            self.kill()
            raise WorkerLostError(f"the worker is not ready after {start_timeout_s:g} s", has_started=False) from error
        except BaseException:
            self.kill()
            raise

    def ask(self, task: str, arguments: Sequence[str], cpu_timeout_s: float) -> dict[str, Any]:
        """The worker's reply.

        Raises:
            TimeoutError: the question took `cpu_timeout_s` seconds of processor time, or STALL_FACTOR times as long by
                the clock.
            WorkerLostError: the process ended for another reason.
        """
        deadline = time.monotonic() + STALL_FACTOR * cpu_timeout_s
        question = json.dumps({"task": task, "arguments": list(arguments), "cpu_timeout_s": cpu_timeout_s})
        try:
            self._socket.settimeout(STALL_FACTOR * cpu_timeout_s)
            self._socket.sendall(question.encode() + b"\n")
        except ConnectionError as error:
            raise WorkerLostError(repr(error), has_started=False) from error
        self._receive(deadline, has_started=False)
        try:
            return self._receive(deadline, has_started=True)
        except WorkerLostError:
            if self.process.returncode == -signal.SIGPROF:  # the kernel's word that the processor time is used up
                raise TimeoutError from None
            raise

    def _receive(self, deadline: float, *, has_started: bool) -> dict[str, Any]:
        while b"\n" not in self._received:
            remaining_s = deadline - time.monotonic()
            if remaining_s <= 0:
                raise TimeoutError
            self._socket.settimeout(remaining_s)
            try:
                chunk = self._socket.recv(1 << 16)
            except ConnectionError:
                chunk = b""
            if not chunk:
                self.kill()
                raise WorkerLostError(f"the worker ended with code {self.process.returncode}", has_started=has_started)
            self._received += chunk
        line, _, self._received = self._received.partition(b"\n")
        try:
            reply = json.loads(line)
        except ValueError:  # something printed before the worker took over its stdout
            reply = None
        return reply if isinstance(reply, dict) else {}

    def kill(self) -> None:
        """End the process at once. May be called twice."""
        self.process.kill()
        self._socket.close()
        try:
            self.process.wait(timeout=1.0)
        except subprocess.TimeoutExpired:
            logger.warning("relay_verl.grading: worker %d does not end when killed", self.process.pid)


def _worker_env() -> dict[str, str]:
    """What the worker needs to start and nothing else, so that no credential is in reach of an answer."""
    passed = ("PATH", "HOME", "LANG", "LD_LIBRARY_PATH", "PYTHONHOME")
    env = {name: value for name, value in os.environ.items() if name in passed or name.startswith("LC_")}
    # The parent may have found this package, or mpmath, through sys.path alone.
    search_path = [os.path.abspath(entry) for entry in sys.path if isinstance(entry, str)]
    package_root = str(Path(__file__).resolve().parent.parent.parent)
    env["PYTHONPATH"] = os.pathsep.join([*search_path, package_root])
    env["OMP_NUM_THREADS"] = "1"
    return env


class WorkerCrew:
    """The workers of one Grader in one process: a fork makes its own and leaves its parent's alone."""

    def __init__(self, num_workers: int, start_timeout_s: float) -> None:
        self.slots = threading.BoundedSemaphore(num_workers)
        self.threads = ThreadPoolExecutor(num_workers, thread_name_prefix="relay-grading")
        self._start_timeout_s = start_timeout_s
        self._lock = threading.Lock()
        self._idle: list[_Worker] = []
        self._busy: set[_Worker] = set()
        self._is_closed = False

    def ask(self, task: str, arguments: Sequence[str], cpu_timeout_s: float) -> bool:
        """The answer to one question of `math_worker.TASKS`, from the last used idle worker or a new one. Raises as
        `_Worker.ask`."""
        with self.slots:
            while True:
                worker, is_new = self._take()
                should_keep = False
                try:
                    reply = worker.ask(task, arguments, cpu_timeout_s)
                    if "result" not in reply:
                        raise WorkerLostError(str(reply.get("error", "malformed reply")), has_started=True)
                    should_keep = not reply["should_retire"]
                    return bool(reply["result"])
                except WorkerLostError as lost:
                    if is_new or lost.has_started:
                        raise
                    # It died while idle: ask the next one. Ends, since each round uses up an idle worker.
                finally:
                    self._release(worker, should_keep)

    def _take(self) -> tuple[_Worker, bool]:
        with self._lock:
            if not self._is_closed and self._idle:
                worker = self._idle.pop()
                self._busy.add(worker)
                return worker, False
        if self._is_closed:
            raise WorkerLostError("the grader is closed", has_started=False)
        worker = _Worker(self._start_timeout_s)
        with self._lock:
            self._busy.add(worker)
            if self._is_closed:
                worker.process.kill()  # `ask` finds it gone
        return worker, True

    def _release(self, worker: _Worker, should_keep: bool) -> None:
        with self._lock:
            self._busy.discard(worker)
            should_keep = should_keep and not self._is_closed
            if should_keep:
                self._idle.append(worker)
        if not should_keep:
            worker.kill()

    def close(self) -> None:
        with self._lock:
            self._is_closed = True
            idle, self._idle = self._idle, []
            for worker in self._busy:
                worker.process.kill()  # its own thread notices and clears up
        for worker in idle:
            worker.kill()
        self.threads.shutdown(wait=False)
