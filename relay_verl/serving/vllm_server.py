"""A `vllm serve` process of one model: its command line and its environment, on GPUs and on the CPU build.

What relaying needs of a server: token ids in and out, the lengths of cached prefixes in usage, no sampling defaults of
the model's own, and a prefix cache, since a response is read again at each turn. The server listens on loopback, and
its key travels in the environment, where neither `ps` nor a log shows it.
"""

from __future__ import annotations

import shlex
import socket
import sys
from collections.abc import Mapping
from dataclasses import dataclass

from relay_verl.cpu.threads import ENGINE_THREADS
from relay_verl.errors import UserError, as_user_error
from relay_verl.serving import stream_door
from relay_verl.serving.placement import Placement

HOST = "127.0.0.1"
KEY_VARIABLE = "VLLM_API_KEY"
"""Where `vllm serve` reads its key."""
_OURS = (
    "--host",
    "--port",
    "--uds",
    "--model",
    "--served-model-name",
    "--api-key",
    "--max-model-len",
    "--dtype",
    "--generation-config",
    "--tensor-parallel-size",
    "-tp",
    "--gpu-memory-utilization",
    "--trust-remote-code",
)
"""Options that this file sets, or that have an option of `relay-verl serve`."""
_ON_CPU = {
    "VLLM_CPU_OMP_THREADS_BIND": "nobind",  # two engines would bind to the same cores
    "OMP_WAIT_POLICY": "PASSIVE",  # a waiting thread leaves its core to the other engine
    "TORCH_COMPILE_DISABLE": "1",
    # An engine of one worker computes in its core's process. vLLM takes that to be one without OpenMP's variables,
    # which it has from here, and refuses it unless this one is 0; the server's engine does not read it.
    "VLLM_ENABLE_V1_MULTIPROCESSING": "0",
}


@dataclass(frozen=True)
class VllmServer:
    """One model's server, before it is started."""

    role: str
    """`student` or `teacher`: names the log, and the model to whoever asks it."""
    model: str
    """Folder or hub id."""
    port: int
    """On loopback."""
    api_key_env: str
    """Environment variable of this process that holds the key of the server."""
    placement: Placement
    """What it computes with."""
    dtype: str = "auto"
    """Format of weights and activations, as vLLM names it."""
    max_model_len: int | None = None
    """Tokens of the context; None takes as many as the model has and the cache holds."""
    trust_remote_code: bool = False
    """Whether code in the model's folder may run."""
    more: tuple[str, ...] = ()
    """Further arguments of `vllm serve`, see `parse_more`."""
    door: str | None = None
    """Path of the socket that streams its tokens (`stream_door`); None for HTTP alone."""

    @property
    def base_url(self) -> str:
        """Address of the API."""
        return f"http://{HOST}:{self.port}/v1"

    def command(self) -> list[str]:
        """The command line."""
        options = {
            "--host": HOST,
            "--port": str(self.port),
            "--served-model-name": self.role,
            "--dtype": self.dtype,
            "--max-model-len": "auto" if self.max_model_len is None else str(self.max_model_len),
            "--generation-config": "vllm",  # its ends of a response count, its temperature does not
            "--uvicorn-log-level": "warning",
        }
        flags = [
            "--enable-prefix-caching",
            "--enable-prompt-tokens-details",
            *([] if self.door is None else ["--middleware", stream_door.NAME]),
            "--disable-uvicorn-access-log",
            *(["--trust-remote-code"] if self.trust_remote_code else []),
        ]
        place = self.placement
        if place.is_cpu:
            flags.append("--enforce-eager")
            options["--distributed-executor-backend"] = "uni"
        else:
            options["--tensor-parallel-size"] = str(len(place.gpus))
        if place.cache_bytes is not None:
            options["--kv-cache-memory-bytes"] = str(place.cache_bytes)
        if place.memory_share is not None:
            options["--gpu-memory-utilization"] = f"{place.memory_share:.3f}"
        words = [word for pair in options.items() for word in pair]
        # `vllm serve` asks for the version of the distribution 'vllm', and the CPU build's is called 'vllm-cpu'; the
        # module that it runs does not. Remove when the CPU build ships as 'vllm'.
        module = (
            ["vllm.entrypoints.openai.api_server", "--model"]
            if place.is_cpu
            else ["vllm.entrypoints.cli.main", "serve"]
        )
        return [sys.executable, "-m", *module, self.model, *words, *flags, *self.more]

    def environment(self, variables: Mapping[str, str]) -> dict[str, str]:
        """The environment of the process.

        Args:
            variables: of this process; what the user set of vLLM's stays.
        """
        place = self.placement
        own = {KEY_VARIABLE: variables[self.api_key_env].strip()}  # as its clients send it
        if self.door is not None:
            own[stream_door.PATH_VARIABLE] = self.door
        if place.is_cpu:
            threads = variables.get(ENGINE_THREADS) or str(place.num_threads)
            own |= {name: variables.get(name, value) for name, value in _ON_CPU.items()}
            own |= {"OMP_NUM_THREADS": threads}
        else:
            own |= {"CUDA_VISIBLE_DEVICES": ",".join(place.gpus)}
        return {**variables, **own}


def parse_more(option: str, text: str) -> tuple[str, ...]:
    """Further arguments of `vllm serve` from one option of ours.

    >>> parse_more("--teacher-args", "--quantization fp8")
    ('--quantization', 'fp8')

    Raises:
        UserError: quotes that do not match, or an argument that we set.
    """
    try:
        words = shlex.split(text)
    except ValueError as error:
        raise UserError(f"{option}: {text!r}: {error}") from None
    for word in words:
        name = word.partition("=")[0].replace("_", "-")
        if name in _OURS:
            raise UserError(f"{option}: {name} is set by relay-verl serve; see its own options in --help")
    return tuple(words)


def reserve_port(port: int = 0) -> socket.socket:
    """A socket that holds a port on loopback while it is open, a free one for 0.

    It does not listen, so `vllm serve`, which sets SO_REUSEADDR, can bind the port and listen, also after a restart;
    the kernel gives the port to no other process that asks for a free one.

    Raises:
        UserError: the port is in use.
    """
    holder = socket.socket()
    holder.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    with as_user_error(OSError, lambda error: f"port {port} on {HOST}: {error.strerror}; take another one"):
        holder.bind((HOST, port))
    return holder
