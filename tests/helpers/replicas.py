"""Replicas of a model without an engine: verl's server as a client of replicas sees it, here or in its own process."""

import asyncio
import multiprocessing
import os
import shutil
import signal
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from relay_verl.models import direct_server, replica
from relay_verl.models.direct_server import DirectServer, Door
from relay_verl.models.replica_client import ReplicaClient


class EngineDeadError(Exception):
    """As vLLM's."""


class Server:
    """Stands for verl's server: writes the prompt's length as often as it is asked for."""

    def __init__(self, name: str, seconds: float = 0.0):
        self.name = name
        self.seconds = seconds
        self.fails: Exception | None = None
        self.asked: list[str] = []
        self.running: set[str] = set()
        self.most_running = 0
        self.cancelled: list[str] = []
        self._server_task = SimpleNamespace(get_loop=asyncio.get_running_loop)
        cache = SimpleNamespace(block_size=16)
        self.engine = SimpleNamespace(vllm_config=SimpleNamespace(cache_config=cache))

    async def generate(self, prompt_ids: list[int], sampling_params: dict[str, Any], request_id: str) -> Any:
        assert sampling_params.pop("output_kind") == "when whole"
        self.asked.append(request_id)
        self.running.add(request_id)
        self.most_running = max(self.most_running, len(self.running))
        try:
            if self.fails:
                raise self.fails
            await asyncio.sleep(self.seconds)
        except asyncio.CancelledError:
            self.cancelled.append(request_id)
            raise
        finally:
            self.running.discard(request_id)
        ids = [len(prompt_ids)] * sampling_params["max_tokens"]
        fields = {"global_steps": 7, "num_cached_tokens": 3, "other": object()}
        return SimpleNamespace(token_ids=ids, log_probs=[-0.5] * len(ids), stop_reason="completed", extra_fields=fields)


class ServerProcess:
    """A server in a process of its own, and its handle in Ray."""

    def __init__(self, name: str, seconds: float, fails: Exception | None = None):
        fork = multiprocessing.get_context("fork")
        parent_end, child_end = fork.Pipe(duplex=False)

        def serve() -> None:
            async def forever() -> None:
                server = Server(name, seconds)
                server.fails = fails
                child_end.send(DirectServer(server, asyncio.get_running_loop()).path)
                await asyncio.Event().wait()

            os.close(2)
            asyncio.run(forever())

        self._process = fork.Process(target=serve)
        self._process.start()
        child_end.close()
        self._path = parent_end.recv()
        self.__ray_call__ = SimpleNamespace(remote=self._call)

    async def _call(self, _: Any) -> Door:
        if not self._process.is_alive():
            raise RuntimeError("the actor is dead")
        return Door("here", self._path)

    def kill(self) -> None:
        os.kill(self._process.pid or 0, signal.SIGKILL)
        self._process.join()
        shutil.rmtree(Path(self._path).parent)


@contextmanager
def processes(num: int, seconds: float) -> Iterator[dict[str, ServerProcess]]:
    servers = {f"10.0.0.{number}:8000": ServerProcess(f"{number}", seconds) for number in range(num)}
    try:
        yield servers
    finally:
        for server in servers.values():
            if server._process.is_alive():
                server.kill()


class Actor:
    """Stands for the server's handle in Ray, on this node or on another one."""

    def __init__(self, server: Server, node: str = "here"):
        self._server = server
        self._node = node
        self.__ray_call__ = SimpleNamespace(remote=self._call)
        self.generate = SimpleNamespace(remote=self._generate)

    async def _call(self, function: Callable[[Any], Door]) -> Door:
        door = function(self._server)
        return door._replace(node_id=door.node_id and self._node)

    async def _generate(self, **request: Any) -> Any:
        request["sampling_params"]["output_kind"] = "when whole"
        return await self._server.generate(**request)


def make(num: int, seconds: float = 0.0, **options: Any) -> tuple[ReplicaClient, list[Server]]:
    servers = [Server(f"10.0.0.{number}:8000", seconds) for number in range(num)]
    return ReplicaClient({server.name: Actor(server) for server in servers}, **options), servers


def ask(client: ReplicaClient, name: str, num_tokens: int = 2) -> Any:
    return client.generate(name, prompt_ids=[5, 6, 7], sampling_params={"max_tokens": num_tokens})


def without_vllm(patch: pytest.MonkeyPatch) -> None:
    """Let the door of a server open without vLLM and Ray, on a node called 'here'."""
    for module in (direct_server, replica):
        patch.setattr(module, "node_id", lambda: "here")
    patch.setattr(direct_server, "vllm_names", lambda: ("when whole", EngineDeadError))
