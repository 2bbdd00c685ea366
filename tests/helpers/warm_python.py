"""Python processes that start in a second: forks of one that has imported the large libraries.

A test of the real command line runs `python -m verl.trainer.main_ppo`, of whose 15 seconds some 10 are the imports of
torch, transformers, Ray and datasets. Here these are imported once, and each command is a fork. verl, vLLM and this
project are imported by each fork itself, as they depend on its command line and its environment.

    WarmPython().run("-m", "verl.trainer.main_ppo", "+recipe=relay_tiny", cwd=folder)
"""

import importlib
import json
import os
import select
import signal
import subprocess
import sys
import tempfile
import types
from collections.abc import Mapping
from pathlib import Path
from typing import Any

LARGE = (
    "torch",
    "torch._dynamo",
    "tensordict",
    "transformers",
    "transformers.modeling_utils",
    "transformers.models.auto.modeling_auto",
    "datasets",
    "ray",
    "pandas",
    "pyarrow.parquet",
    "hydra",
)
TIMEOUT_S = 300.0


class WarmPython:
    """The process that is forked."""

    def __init__(self) -> None:
        pipe = subprocess.PIPE
        self._server = subprocess.Popen([sys.executable, "-P", __file__], stdin=pipe, stdout=pipe, text=True, bufsize=1)

    def run(
        self, *words: str, env: Mapping[str, str] = {}, cwd: Path | None = None
    ) -> subprocess.CompletedProcess[str]:
        """Run Python with these words, `-m MODULE ...` or `-c CODE ...`, and `env` added to the environment.

        Raises:
            subprocess.TimeoutExpired: it took longer than TIMEOUT_S.
        """
        assert self._server.stdin and self._server.stdout
        with tempfile.TemporaryDirectory() as folder:
            request = {"words": words, "env": {**os.environ, **env}, "cwd": str(cwd or Path.cwd()), "folder": folder}
            self._server.stdin.write(json.dumps(request) + "\n")
            answer = json.loads(self._server.stdout.readline())
            if answer["returncode"] is None:
                raise subprocess.TimeoutExpired(list(words), TIMEOUT_S)
            out, err = ((Path(folder) / name).read_text(errors="replace") for name in ("out", "err"))
        return subprocess.CompletedProcess(list(words), answer["returncode"], out, err)

    def stop(self) -> None:
        """End the process that is forked."""
        self._server.communicate("")


def serve() -> None:
    """Fork for each line on standard input, and answer with the code it ends with."""
    for name in LARGE:
        importlib.import_module(name)
    for line in sys.stdin:
        request = json.loads(line)
        sys.stdout.flush()
        child = os.fork()
        if not child:
            become(request)
        print(json.dumps({"returncode": wait_for(child)}), flush=True)


def wait_for(child: int) -> int | None:
    """The code that a process ends with; None if it had to be killed."""
    handle = os.pidfd_open(child)
    try:
        is_over = bool(select.select([handle], [], [], TIMEOUT_S)[0])
    finally:
        os.close(handle)
    if not is_over:
        os.kill(child, signal.SIGKILL)
    code = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
    return code if is_over else None


def become(request: Mapping[str, Any]) -> None:
    """Be the process that was asked for, to its end."""
    kind, what, *arguments = request["words"]
    folder = Path(request["folder"])
    for number, path, flags in (
        (0, os.devnull, os.O_RDONLY),
        (1, folder / "out", os.O_WRONLY | os.O_CREAT),
        (2, folder / "err", os.O_WRONLY | os.O_CREAT),
    ):
        os.dup2(os.open(path, flags), number)
    os.environ.clear()
    os.environ.update(request["env"])
    os.chdir(request["cwd"])
    sys.path.insert(0, request["cwd"] if kind == "-m" else "")
    sys.argv = [kind if kind == "-c" else what, *arguments]
    code: Any = 0
    try:
        if kind == "-m":
            import runpy

            runpy.run_module(what, run_name="__main__", alter_sys=True)
        else:
            main = sys.modules["__main__"] = types.ModuleType("__main__")
            exec(compile(what, "<string>", "exec"), main.__dict__)
    except SystemExit as end:
        code = end.code
        if isinstance(code, str):
            print(code, file=sys.stderr)
    except BaseException:
        code = 1
        sys.excepthook(*sys.exc_info())  # type: ignore[arg-type]
    import atexit

    atexit._run_exitfuncs()
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(code if isinstance(code, int) else int(code is not None))


if __name__ == "__main__":
    serve()
