"""RelayPair: a student and its teacher as one object that writes texts, over the decoder of training and serving.

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
from collections.abc import Mapping, Sequence
from contextlib import AsyncExitStack
from copy import copy
from dataclasses import replace
from pathlib import Path
from types import TracebackType
from typing import Any
from uuid import uuid4

from relay_verl.allowance import Allowance, MeteredTeacher, WithinAllowance
from relay_verl.checkpoints.relay_file import RelayFile, read_relay_file
from relay_verl.decoder import RelayDecoder
from relay_verl.deferral import Deferral
from relay_verl.deltas import DeltaReader
from relay_verl.engines.base import TokenEngine, check_reads_ids
from relay_verl.errors import EngineError, TeacherError, UserError
from relay_verl.models.vocabulary import Vocabulary, read_vocabulary
from relay_verl.pair.background_loop import BackgroundLoop
from relay_verl.pair.chat_prompt import Prompt, prompt_ids, prompts_of
from relay_verl.pair.opening import NUM_AT_ONCE, TIMEOUT_S, add_head, open_models, read_options
from relay_verl.pair.relayed_text import RelayedText
from relay_verl.pair.text_stream import PairStream, TextStream
from relay_verl.pair.writing_options import WritingOptions
from relay_verl.policies import make_policy
from relay_verl.policy_base import Policy
from relay_verl.preflight.serving_checks import check_pair
from relay_verl.seeds import derive_seed


class RelayPair:
    """Writes texts with two models. `load` makes one from folders, hub ids and URLs; the class itself takes engines.

    Args:
        student: writes, and decides when to call.
        teacher: answers calls; None leaves every command unserved.
        tokenizer: both models'.
        relay: how the pair is used; the defaults of `relay.json` if None.
        vocabulary: of the student; None takes the tokenizer's end of sequence, and no bound on ids.
        deferral: how the student's engine asks for the teacher, where it has a defer head.
        max_model_len: tokens of the context, prompt and text together; None for no limit.
        num_at_once: texts that are written at a time.
        loop: where the engines run; None makes one.
        resources: what is freed with the pair.
    """

    def __init__(
        self,
        student: TokenEngine,
        teacher: TokenEngine | None,
        tokenizer: Any,
        *,
        relay: RelayFile | None = None,
        vocabulary: Vocabulary | None = None,
        deferral: Deferral | None = None,
        max_model_len: int | None = None,
        num_at_once: int = 16,
        loop: BackgroundLoop | None = None,
        resources: AsyncExitStack | None = None,
    ):
        check_reads_ids("student", student)
        check_reads_ids("teacher", teacher)
        self.relay = relay or RelayFile()
        self.tokenizer = tokenizer
        self.max_model_len = max_model_len
        vocabulary = vocabulary or read_vocabulary(None, tokenizer)
        config = self.relay.decoder_config(
            vocab_size=vocabulary.size,
            end_ids=vocabulary.end_ids,
            student_timeout_s=TIMEOUT_S,
            teacher_timeout_s=TIMEOUT_S,
            deferral=deferral,
        )
        self._decoder = RelayDecoder(student, teacher, tokenizer, config, raises_bugs=True)
        self._places = asyncio.Semaphore(num_at_once)
        self._loop = loop or BackgroundLoop()
        self._resources = resources or AsyncExitStack()

    @classmethod
    def load(
        cls,
        student: str | Path,
        teacher: str | Path | None = None,
        *,
        engine: str = "transformers",
        tokenizer: str | Path | None = None,
        relay: RelayFile | None = None,
        defer_head: str | Path | None = None,
        defer_tokens: int = 1,
        device: str | None = None,
        trust_remote_code: bool = False,
    ) -> RelayPair:
        """A pair of models, each at a folder, a hub id or the URL of an endpoint with token ids, such as vLLM's.

        Args:
            student: writes; its `relay.json` says how the pair is used.
            teacher: answers calls; None leaves every command unserved.
            engine: what runs models that are not behind a URL: 'transformers' in this process, or 'vllm', which starts
                a server for each.
            tokenizer: folder or hub id of the student's tokenizer, if the student is a URL.
            relay: how the pair is used, in place of the student's file.
            defer_head: folder of a head (`relay_verl.defer`) by which the student's engine asks the teacher under the
                policies `deferred` and `deferred_TAU`.
            defer_tokens: tokens that the teacher writes each time that the head asks.
            device: of transformers' models, as torch names it; None takes a GPU where there is one.
            trust_remote_code: run code in the models' folders.

        Raises:
            UserError: a model is not there or does not load, the tokenizers differ, or the head does not fit.
            EngineError: an endpoint does not answer.
        """
        options = read_options(student, teacher, engine, tokenizer, trust_remote_code=trust_remote_code)
        path = options.student.path
        loop, resources = BackgroundLoop(), AsyncExitStack()

        async def open_pair() -> RelayPair:
            # the checks have event loops of their own
            loaded, opened = await asyncio.to_thread(check_pair, options), options
            if defer_head is not None:
                opened = add_head(options, defer_head, defer_tokens, loaded)
            trained = relay or (RelayFile() if path is None else read_relay_file(path))
            models = await open_models(opened, engine, loaded, device, resources)
            return cls(
                models[0].engine,
                models[1].engine if len(models) > 1 else None,
                loaded,
                relay=trained,
                vocabulary=read_vocabulary(path or options.tokenizer, loaded, options.prompts),
                deferral=opened.deferral,
                max_model_len=min((m.max_model_len for m in models if m.max_model_len is not None), default=None),
                num_at_once=NUM_AT_ONCE[engine],
                loop=loop,
                resources=resources,
            )

        try:
            return loop.run(open_pair())
        except BaseException:
            loop.run(resources.aclose())
            loop.close()
            raise

    # ---- writing ----

    def generate(self, prompts: Prompt | Sequence[Prompt], **options: Any) -> list[RelayedText]:
        """A text for each prompt, in order.

        Args:
            prompts: one, or several. A question becomes a chat of one message, as in training.
            options: fields of `WritingOptions`.

        Raises:
            UserError: an option, or a prompt that leaves no room for a text; nothing is written then.
            TeacherError: the teacher failed and `on_teacher_failure` is 'fail'.
        """
        return self._loop.run(self._generate(prompts, options))

    async def agenerate(self, prompts: Prompt | Sequence[Prompt], **options: Any) -> list[RelayedText]:
        """`generate` for a caller in an event loop."""
        return await self._loop.arun(self._generate(prompts, options))

    def stream(self, prompt: Prompt, **options: Any) -> PairStream:
        """A text while it is written: iterate over it for its deltas, then ask for its `result`. Closing it ends the
        requests to both models.

        Args:
            prompt: as for `generate`.
            options: the same.

        Raises:
            UserError: as for `generate`.
        """
        chosen = WritingOptions.read(options)
        return PairStream(self._begin(self._encode(prompt, chosen), chosen, 0, streams=True), self._loop, self._places)

    astream = stream
    """The same object is an async iterator, for a caller in an event loop."""

    async def _generate(self, prompts: Prompt | Sequence[Prompt], options: Mapping[str, Any]) -> list[RelayedText]:
        chosen = WritingOptions.read(options)
        # all prompts are encoded before a model is asked
        encoded = [self._encode(prompt, chosen) for prompt in prompts_of(prompts)]
        streams = bool(chosen.stops)  # a text that ends at a stop string ends there for the engines, too
        texts = [self._begin(ids, chosen, number, streams=streams) for number, ids in enumerate(encoded)]
        tasks = [asyncio.create_task(self._write(text)) for text in texts]
        try:
            return list(await asyncio.gather(*tasks))
        finally:
            for task in tasks:
                task.cancel()

    async def _write(self, text: TextStream) -> RelayedText:
        async with self._places:
            try:
                async for _ in text.deltas():
                    pass
            except TeacherError:
                raise
            except EngineError:  # is said in the result
                pass
        return text.result()

    def _encode(self, prompt: Prompt, options: WritingOptions) -> list[int]:
        ids = prompt_ids(prompt, self.tokenizer, self.relay.template)
        if self.max_model_len is not None and len(ids) >= self.max_model_len:
            raise UserError(f"prompt: {len(ids)} tokens; the context has {self.max_model_len}")
        return ids

    def _begin(self, ids: list[int], options: WritingOptions, number: int, *, streams: bool) -> TextStream:
        """The text number `number` of a call, not yet begun."""
        limit = options.max_tokens or self._decoder.config.max_response_tokens
        if self.max_model_len is not None:
            limit = min(limit, self.max_model_len - len(ids))
        seed = options.seed if options.seed is None or number == 0 else derive_seed(options.seed, number)
        policy = make_policy(
            options.policy or self.relay.policy, derive_seed(uuid4().int if seed is None else seed, "policy")
        )
        if self._decoder.teacher is None and policy.next_interruption() is not None:
            raise UserError(f"policy: {options.policy or self.relay.policy!r} needs a teacher, and the pair has none")
        sampling = options.parameters() | ({} if seed is None else {"seed": seed})
        teacher: MeteredTeacher | None = None
        if options.max_teacher_tokens is not None and self._decoder.teacher is not None:
            if not type(policy).needs_student:
                # the student must not continue where the budget ends
                if options.max_teacher_tokens == 0:
                    raise UserError("max_teacher_tokens: 0 leaves the teacher alone nothing to write")
                limit = min(limit, options.max_teacher_tokens)
            allowance = Allowance(options.max_teacher_tokens)
            teacher = MeteredTeacher(self._decoder.teacher, self._decoder.teacher_pulse, [allowance])
        limited = None if teacher is None else WithinAllowance(policy, teacher)
        relay = self._decoder_for(options, policy, limit).stream(
            ids,
            sampling={**self.relay.sampling.student.parameters(), **sampling},
            teacher_sampling=sampling,
            policy=limited or policy,
            max_response_tokens=limit,
            teacher=teacher,
            streams=streams,
        )
        reader = DeltaReader(self._decoder.tokens, show_commands=options.show_commands, stop=options.stops)
        return TextStream(relay, reader, self._decoder.end_ids, limited)

    def _decoder_for(self, options: WritingOptions, policy: Policy, limit: int) -> RelayDecoder:
        """The decoder with the limits of one call: a copy, which shares what follows the engines' load."""
        changes: dict[str, Any] = {"max_response_tokens": limit}
        if options.max_calls is not None:
            changes["max_calls"] = options.max_calls
        if options.on_teacher_failure is not None:
            changes["on_teacher_failure"] = options.on_teacher_failure
        elif not type(policy).needs_student:
            changes["on_teacher_failure"] = "drop"  # who writes alone has to write
        decoder = copy(self._decoder)
        decoder.config = replace(decoder.config, **changes)
        return decoder

    # ---- its end ----

    def close(self) -> None:
        """Free both models, and end the servers that `load` started."""
        if not self._loop.is_closed:
            self._loop.run(self._resources.aclose())
            self._loop.close()

    def __enter__(self) -> RelayPair:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.close()
