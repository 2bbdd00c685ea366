"""From options to a running server, and to its end: the models' servers, the application, signals.

Order of the end, on SIGTERM or Ctrl-C: no new connection is taken; requests that run have `shutdown_timeout_s`; then
the models' servers end. A second signal ends all at once. Invariant: however this process ends, its models' servers end
(`child_guard`).
"""

from __future__ import annotations

import asyncio
import gc
import os
import signal
import socket
from collections.abc import Callable, Mapping
from typing import Any

from relay_verl.checkpoints.relay_file import RelayFile
from relay_verl.models.vocabulary import read_vocabulary
from relay_verl.serving.app import create_app
from relay_verl.serving.model_servers import ModelServers
from relay_verl.serving.pair_options import PairOptions
from relay_verl.serving.placement import Placement
from relay_verl.serving.service import RelayService
from relay_verl.serving.settings import ServeSettings
from relay_verl.serving.starting_app import StartingApp
from relay_verl.serving.supervisor import Supervisor
from relay_verl.serving.web_server import WebServer, url_of

DEFAULT_MODEL_LEN = 4096
"""Tokens of the context where a student's server does not say them."""
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
        self._models = ModelServers(options, placements, tokenizer)
        self._listener = listener
        self._name = name
        self._announce = announce

    def run(self) -> None:
        """Serve until a signal.

        Raises:
            EngineError: a model that is started here never answered.
        """
        self._models.prepare_environment()
        front = StartingApp(self._settings.retry_after_s)
        web = WebServer(front, self._settings)
        with asyncio.Runner(loop_factory=web.config.get_loop_factory()) as runner:
            runner.run(self._serve(front, web))

    async def _serve(self, front: StartingApp, web: WebServer) -> None:
        supervisor = self._models.supervisor()

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
            failing = asyncio.create_task(supervisor.wait_until_failed())
            try:
                await asyncio.wait({serving, starting}, return_when=asyncio.FIRST_COMPLETED)
                if starting.done():
                    starting.result()
                    await asyncio.wait({serving, failing}, return_when=asyncio.FIRST_COMPLETED)
                    if failing.done():
                        failing.result()
            finally:
                starting.cancel()
                failing.cancel()
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
            self._models.engine(self._options.student, self._settings.student_timeout_s),
            None if teacher is None else self._models.engine(teacher, self._settings.teacher_timeout_s),
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
            deferral=self._options.deferral,
            state=supervisor.state,
        )
        front.app = create_app(service, self._settings, state=supervisor.state)
        # what is there now stays: collections that look through it would only make pauses
        gc.collect()
        gc.freeze()
        self._announce(url_of(self._listener))
