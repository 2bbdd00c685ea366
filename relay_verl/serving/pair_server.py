"""From options to a running server, and to its end: the models' servers, the application, signals.

Order of the end, on SIGTERM or Ctrl-C: no new connection is taken; requests that run have `shutdown_timeout_s`; then
the models' servers end. A second signal ends all at once. Invariant: however this process ends, its models' servers end
(`child_guard`).
"""

from __future__ import annotations

import asyncio
import gc
import os
import secrets
import signal
import socket
from collections.abc import Callable, Mapping
from typing import Any

from relay_verl.checkpoints.relay_file import RelayFile
from relay_verl.config import TeacherSettings
from relay_verl.engines.base import TokenEngine
from relay_verl.engines.endpoint import EndpointEngine
from relay_verl.engines.resilience import GuardedEngine
from relay_verl.models.vocabulary import read_vocabulary
from relay_verl.serving.app import create_app
from relay_verl.serving.health_probe import HealthProbe
from relay_verl.serving.model_watch import EndpointWatch, ModelWatch, ProcessWatch
from relay_verl.serving.pair_options import ModelOptions, PairOptions
from relay_verl.serving.placement import Placement, share_a_gpu
from relay_verl.serving.service import RelayService
from relay_verl.serving.settings import ServeSettings
from relay_verl.serving.starting_app import StartingApp
from relay_verl.serving.supervisor import Supervisor
from relay_verl.serving.vllm_server import HOST, VllmServer, reserve_port
from relay_verl.serving.web_server import WebServer, url_of

DEFAULT_MODEL_LEN = 4096
"""Tokens of the context where a student's server does not say them."""
BREAKER_RESET_S = 5.0
"""Seconds for which calls fail at once after a row of failures."""
KILLED = 130
"""Exit code after a second signal."""


class PairServer:
    """A pair that is about to be served.

    Args:
        options: the models.
        settings: the operator's.
        relay: how the pair is to be used.
        tokenizer: the student's.
        placements: what each server that is started here computes with, by role.
        listener: the socket that clients connect to.
        name: the pair's name to clients.
        announce: told once, when requests are taken: the address.
    """

    def __init__(
        self,
        options: PairOptions,
        settings: ServeSettings,
        relay: RelayFile,
        tokenizer: Any,
        placements: Mapping[str, Placement],
        listener: socket.socket,
        name: str,
        announce: Callable[[str], None],
    ):
        self._options = options
        self._settings = settings
        self._relay = relay
        self._tokenizer = tokenizer
        self._placements = placements
        self._listener = listener
        self._name = name
        self._announce = announce
        self._ports: list[socket.socket] = []

    def run(self) -> None:
        """Serve until a signal.

        Raises:
            EngineError: a model that is started here never answered.
        """
        self._prepare_environment()
        front = StartingApp(self._settings.retry_after_s)
        web = WebServer(front, self._settings)
        with asyncio.Runner(loop_factory=web.config.get_loop_factory()) as runner:
            runner.run(self._serve(front, web))

    async def _serve(self, front: StartingApp, web: WebServer) -> None:
        student = self._watch(self._options.student, None)
        waits_for = student if share_a_gpu(self._placements) else None
        teacher = None if self._options.teacher is None else self._watch(self._options.teacher, waits_for)
        supervisor = Supervisor(student, teacher)

        def stop() -> None:
            if web.should_exit:
                os._exit(KILLED)  # the guards end the models' servers
            supervisor.stop_serving()
            web.should_exit = True

        loop = asyncio.get_running_loop()
        for number in (signal.SIGINT, signal.SIGTERM):
            loop.add_signal_handler(number, stop)
        async with supervisor:
            serving = asyncio.create_task(web.serve(sockets=[self._listener]))
            starting = asyncio.create_task(self._start(front, supervisor))
            try:
                await asyncio.wait({serving, starting}, return_when=asyncio.FIRST_COMPLETED)
                if starting.done():
                    starting.result()
                    await asyncio.wait({serving})
            finally:
                starting.cancel()
                web.should_exit = True
                await serving

    async def _start(self, front: StartingApp, supervisor: Supervisor) -> None:
        """Put the application in front once the models answer."""
        await supervisor.wait_until_settled()
        lengths = [
            watch.model.max_model_len if watch is not None and watch.model is not None else None
            for watch in (supervisor.student, supervisor.teacher)
        ]
        teacher = self._options.teacher
        service = RelayService(
            self._engine(self._options.student, self._settings.student_timeout_s),
            None if teacher is None else self._engine(teacher, self._settings.teacher_timeout_s),
            self._tokenizer,
            self._relay,
            self._name,
            lengths[0] or DEFAULT_MODEL_LEN,
            lengths[1],
            self._settings,
            vocabulary=read_vocabulary(
                self._options.student.path or self._options.tokenizer,
                self._tokenizer,
                self._options.prompts,
            ),
            state=supervisor.state,
        )
        front.app = create_app(service, self._settings, state=supervisor.state)
        # what is there now stays: collections that look through it would only make pauses
        gc.collect()
        gc.freeze()
        self._announce(url_of(self._listener))

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
        )
        log = self._options.logs / f"{model.role}.log"
        return ProcessWatch(server, log, token_id, self._options.start_timeout_s, after)

    def _engine(self, model: ModelOptions, timeout_s: float) -> TokenEngine:
        port = self._ports[self._options.ours.index(model)].getsockname()[1] if model.is_ours else 0
        url = model.url or f"http://{HOST}:{port}/v1"
        name = model.role if model.is_ours else model.name_there
        engine = EndpointEngine(url, name, api_key_env=model.api_key_env, timeout_s=timeout_s)
        if model.role == "student":
            return engine
        # a teacher that is gone costs a call nothing; the client tries again by itself
        return GuardedEngine(
            engine,
            num_retries=0,
            breaker_threshold=TeacherSettings.breaker_threshold,
            breaker_reset_s=BREAKER_RESET_S,
        )

    def _prepare_environment(self) -> None:
        """Keys for the servers that are started here, and no proxy on the way to them."""
        for model in self._options.ours:
            # a key that is given is kept, so that others can share this teacher
            if not os.environ.get(model.api_key_env, "").strip():
                os.environ[model.api_key_env] = secrets.token_urlsafe(32)
        for name in ("NO_PROXY", "no_proxy"):
            hosts = [host for host in os.environ.get(name, "").split(",") if host]
            os.environ[name] = ",".join(dict.fromkeys([*hosts, HOST, "localhost"]))
