"""The servers of a pair's two models: those that are started here, and those that run already.

models = ModelServers(options, placements, tokenizer)
models.prepare_environment()
async with models.supervisor() as supervisor:
    await supervisor.wait_until_settled()
    models.engine(options.student, timeout_s=120.0)
"""

from __future__ import annotations

import os
import secrets
import socket
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from relay_verl.config import TeacherSettings
from relay_verl.engines.base import TokenEngine
from relay_verl.engines.endpoint import EndpointEngine
from relay_verl.engines.resilience import GuardedEngine
from relay_verl.serving.door_engine import DoorEngine
from relay_verl.serving.health_probe import HealthProbe
from relay_verl.serving.model_watch import EndpointWatch, ModelWatch, ProcessWatch
from relay_verl.serving.pair_options import ModelOptions, PairOptions
from relay_verl.serving.placement import Placement, share_a_gpu
from relay_verl.serving.supervisor import Supervisor
from relay_verl.serving.vllm_server import HOST, VllmServer, reserve_port

BREAKER_RESET_S = 5.0
"""Seconds for which calls fail at once after a row of failures."""


class ModelServers:
    """Both models as servers.

    Args:
        options: the models.
        placements: what each server that is started here computes with, by role.
        tokenizer: the student's.
    """

    def __init__(self, options: PairOptions, placements: Mapping[str, Placement], tokenizer: Any):
        self._options = options
        self._placements = placements
        self._tokenizer = tokenizer
        self._logs = options.logs
        self._ports: list[socket.socket] = []
        self._asked: list[DoorEngine | EndpointEngine] = []
        self._doors = tempfile.TemporaryDirectory(prefix="relay-door-")  # its mode is 0700

    def supervisor(self) -> Supervisor:
        """What starts, watches and ends them; once."""
        student = self._watch(self._options.student, None)
        waits_for = student if share_a_gpu(self._placements) else None
        teacher = None if self._options.teacher is None else self._watch(self._options.teacher, waits_for)
        return Supervisor(student, teacher)

    def prepare_environment(self) -> None:
        """Keys for the servers that are started here, and no proxy on the way to them."""
        for model in self._options.ours:
            # a key that is given is kept, so that others can share this teacher
            if not os.environ.get(model.api_key_env, "").strip():
                os.environ[model.api_key_env] = secrets.token_urlsafe(32)
        for name in ("NO_PROXY", "no_proxy"):
            hosts = [host for host in os.environ.get(name, "").split(",") if host]
            os.environ[name] = ",".join(dict.fromkeys([*hosts, HOST, "localhost"]))

    def _door_of(self, model: ModelOptions) -> str:
        return str(Path(self._doors.name) / model.role)

    def engine(self, model: ModelOptions, timeout_s: float) -> TokenEngine:
        """Asks a model of the pair.

        Args:
            model: one of the options'.
            timeout_s: seconds of silence after which a request fails.
        """
        port = self._ports[self._options.ours.index(model)].getsockname()[1] if model.is_ours else 0
        url = model.url or f"http://{HOST}:{port}/v1"
        name = model.role if model.is_ours else model.name_there
        endpoint = EndpointEngine(url, name, api_key_env=model.api_key_env, timeout_s=timeout_s)
        engine = DoorEngine(self._door_of(model), endpoint) if model.is_ours else endpoint
        self._asked.append(engine)
        if model.role == "student":
            return engine
        # a teacher that is gone costs a call nothing; the client tries again by itself
        return GuardedEngine(
            engine,
            num_retries=0,
            breaker_threshold=TeacherSettings.breaker_threshold,
            breaker_reset_s=BREAKER_RESET_S,
        )

    async def aclose(self) -> None:
        """Close the connections of all engines of the running event loop."""
        for engine in self._asked:
            await engine.aclose()

    def _watch(self, model: ModelOptions, after: ModelWatch | None) -> ModelWatch:
        token_id = int(self._tokenizer.eos_token_id)
        if model.url is not None:
            probe = HealthProbe(model.url, model.name_there, model.api_key_env)
            return EndpointWatch(model.role, probe, token_id, is_needed=model.role == "student")
        holder = reserve_port(model.port)
        self._ports.append(holder)
        assert model.path is not None
        server = VllmServer(
            model.role,
            model.path,
            holder.getsockname()[1],
            model.api_key_env,
            self._placements[model.role],
            dtype=self._options.dtype,
            max_model_len=model.max_model_len,
            trust_remote_code=self._options.trust_remote_code,
            more=model.more,
            door=self._door_of(model),
        )
        if self._logs is None:
            self._logs = Path(tempfile.mkdtemp(prefix="relay-serve-"))
        log = self._logs / f"{model.role}.log"
        return ProcessWatch(server, log, token_id, self._options.start_timeout_s, after)
