"""RelayPair: a student and its teacher as one object that writes texts, where training and serving use the decoder.

    with RelayPair.load("out/relay_1.7b", "Qwen/Qwen3-8B") as pair:
        for text in pair.generate(["What is 7*8?", "What is 12*13?"]):
            print(text, text.usage["call_ratio"])
        for delta in pair.stream("What is 7*8?"):
            print(delta.text, end="")

Both models run in an event loop of the pair's own, so the calls work in scripts, in notebooks and, by their async
siblings, in other event loops. A model that fails is data in `generate` (`RelayedText.error`) and an EngineError in
`stream`; a bug in an engine of your own is raised as it is.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Iterator, Mapping, Sequence
from contextlib import AsyncExitStack
from dataclasses import replace
from pathlib import Path
from types import TracebackType
from typing import Any, Union
from uuid import uuid4

from relay_verl.checkpoints.relay_file import RelayFile, read_relay_file
from relay_verl.decoder import RelayDecoder
from relay_verl.deltas import Delta, DeltaReader
from relay_verl.engines.base import TokenEngine
from relay_verl.engines.deadlines import pulse_of
from relay_verl.errors import EngineError, TeacherError, UserError
from relay_verl.models.address import is_endpoint
from relay_verl.models.vocabulary import Vocabulary, read_vocabulary
from relay_verl.pair.background_loop import BackgroundLoop
from relay_verl.pair.opening import NUM_AT_ONCE, TIMEOUT_S, open_models, read_options
from relay_verl.pair.relayed_text import RelayedText, TextStream
from relay_verl.pair.writing_options import WritingOptions
from relay_verl.policies import make_policy
from relay_verl.preflight.serving_checks import check_pair
from relay_verl.seeds import derive_seed
from relay_verl.serving.allowance import Allowance, MeteredTeacher, WithinAllowance
from relay_verl.tokenization import chat_ids

Chat = Sequence[Mapping[str, Any]]
Prompt = Union[str, Chat, Sequence[int]]
"""A question, the messages of a chat, or token ids. A question becomes a chat of one message, as in training."""


class RelayPair:
    """Writes texts with two models. `load` makes one from folders, hub ids and URLs; the class itself takes engines.

    Args:
        student: writes, and decides when to call.
        teacher: answers calls; None leaves every command unserved.
        tokenizer: both models'.
        relay: how the pair is to be used, as it was trained.
        vocabulary: of the student; None takes the tokenizer's end of sequence, and no bound on ids.
        max_model_len: tokens of the context, prompt and text together; None for no limit.
        num_at_once: texts that are written at a time.
    """

    def __init__(
        self,
        student: TokenEngine,
        teacher: TokenEngine | None,
        tokenizer: Any,
        *,
        relay: RelayFile | None = None,
        vocabulary: Vocabulary | None = None,
        max_model_len: int | None = None,
        num_at_once: int = 16,
    ):
        self.relay = relay or RelayFile()
        self.tokenizer = tokenizer
        self.max_model_len = max_model_len
        vocabulary = vocabulary or read_vocabulary(None, tokenizer)
        self._num_at_once = num_at_once
        config = self.relay.decoder_config(
            vocab_size=vocabulary.size,
            end_ids=vocabulary.end_ids,
            student_timeout_s=TIMEOUT_S,
            teacher_timeout_s=TIMEOUT_S,
        )
        self._decoder = RelayDecoder(student, teacher, tokenizer, config, raises_bugs=True)
        self._loop = BackgroundLoop()
        self._stack = AsyncExitStack()

    @classmethod
    def load(
        cls,
        student: str | Path,
        teacher: str | Path | None = None,
        *,
        engine: str = "transformers",
        tokenizer: str | Path | None = None,
        relay: RelayFile | None = None,
        device: str | None = None,
        trust_remote_code: bool = False,
    ) -> RelayPair:
        """A pair of models, each at a folder, a hub id or the URL of an endpoint with token ids, such as vLLM's.

        Args:
            student: writes; its `relay.json` says how the pair is used.
            teacher: answers calls; None leaves every command unserved.
            engine: what runs models that are not behind a URL: 'transformers' in this process, or 'vllm', which starts
                a server of each.
            tokenizer: folder or hub id of the student's tokenizer, if the student is a URL.
            relay: how the pair is used, in place of the student's file.
            device: of transformers' models, as torch names it; None takes a GPU where there is one.
            trust_remote_code: run code in the models' folders.

        Raises:
            UserError: a model is not there or does not load, or the tokenizers differ.
            EngineError: an endpoint does not answer.
        """
        options = read_options(student, teacher, engine, tokenizer, trust_remote_code=trust_remote_code)
        path = options.student.path
        relay = relay or (RelayFile() if path is None else read_relay_file(path))
        loop, stack = BackgroundLoop(), AsyncExitStack()

        async def open_both() -> RelayPair:
            # the checks have event loops of their own
            loaded = await asyncio.to_thread(check_pair, options)
            models = await open_models(options, engine, loaded, device, stack)
            lengths = [model.max_model_len for model in models if model.max_model_len is not None]
            pair = cls.__new__(cls)
            return pair

        raise NotImplementedError(open_both, lengths)  # replaced below
