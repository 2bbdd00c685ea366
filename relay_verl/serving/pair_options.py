"""Which two models are served, and how their own servers run: what the command line says, as one value."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from relay_verl.config import DeferSettings
from relay_verl.defer.engine_head import EngineHead
from relay_verl.deferral import Deferral
from relay_verl.engines.address import check_address
from relay_verl.errors import UserError, as_user_error
from relay_verl.models.address import is_endpoint, is_engine
from relay_verl.models.deferring import read_engine_head
from relay_verl.run_config import PromptSettings

STUDENT_KEY, TEACHER_KEY = "RELAY_STUDENT_API_KEY", "RELAY_TEACHER_API_KEY"
"""Environment variables with the keys of the models' servers."""


@dataclass(frozen=True)
class ModelOptions:
    """One of the two models."""

    role: str
    """`student` or `teacher`."""
    path: str | None = None
    """Folder or hub id of a model that is started here."""
    url: str | None = None
    """Address of a server that runs already."""
    name_there: str | None = None
    """The model's name at that address; None for its first one."""
    port: int = 0
    """Port on loopback of the server that is started here; 0 for a free one."""
    gpus: tuple[str, ...] = ()
    """GPUs of that server, over which the model is split; none to have them chosen."""
    max_model_len: int | None = None
    """Tokens of the context; None takes as many as the model has and its cache holds."""
    more: tuple[str, ...] = ()
    """Further arguments of `vllm serve`."""

    @property
    def api_key_env(self) -> str:
        """Environment variable with the key of its server."""
        return STUDENT_KEY if self.role == "student" else TEACHER_KEY

    @property
    def is_ours(self) -> bool:
        """Whether its server is started here."""
        return self.url is None


@dataclass(frozen=True)
class PairOptions:
    """The pair."""

    student: ModelOptions
    """Writes."""
    teacher: ModelOptions | None
    """Answers calls; None serves the student alone."""
    tokenizer: str
    """Folder or hub id of the student's tokenizer."""
    logs: Path | None = None
    """Folder of the models' logs; None makes one for temporary files."""
    dtype: str = "auto"
    """Format of weights and activations."""
    cache_bytes: int | None = None
    """Size of each model's cache; None for the default of the machine."""
    start_timeout_s: float = 1800.0
    """Seconds until a model that is started here answers."""
    trust_remote_code: bool = False
    """Whether code in the models' folders may run."""
    deferral: Deferral | None = None
    """How the student's engine asks for the teacher, where it has a defer head."""
    head: EngineHead | None = None
    """That head."""

    @property
    def prompts(self) -> PromptSettings:
        """How the models' files are read: of a recipe's words, only whether their code may run."""
        return PromptSettings({}, trust_remote_code=self.trust_remote_code)

    def __iter__(self) -> Iterator[ModelOptions]:
        yield self.student
        if self.teacher is not None:
            yield self.teacher

    @property
    def ours(self) -> list[ModelOptions]:
        """Those whose server is started here."""
        return [model for model in self if model.is_ours]


_SPECULATES = ("--speculative-config", "-sc", "--spec-method", "--spec-model", "--spec-tokens")


def with_head(options: PairOptions, settings: DeferSettings, tokenizer: Any, key: str = "--defer-head") -> PairOptions:
    """The pair whose student has a defer head.

    Args:
        options: the pair.
        settings: which head, which is given.
        tokenizer: the student's.
        key: what names the head in a message.

    Raises:
        UserError: the student is not started here, decodes speculatively, or does not fit the head.
    """
    student = options.student
    if student.path is None:
        raise UserError(f"{key}: {student.url} runs already; a head is for a student that is started here")
    if options.teacher is None:
        raise UserError(f"{key}: a head asks the teacher, and the pair has none")
    names = [word.partition("=")[0].replace("_", "-") for word in student.more]
    if refused := [name for name in names if name in (*_SPECULATES, "--hf-overrides", "--logits-processors")]:
        raise UserError(
            f"--student-args: {refused[0]}: not with {key}, which sets the model's class and scores each token "
            "before it is written"
        )
    with as_user_error(UserError, lambda error: str(error).replace("relay.defer.head", key)):
        head = read_engine_head(settings, student.path, tokenizer, options.prompts)
    served = replace(student, more=(*student.more, *head.arguments()))
    return replace(options, student=served, deferral=head.deferral(settings.num_tokens), head=head)


def read_model(
    role: str, path: str | None, url: str | None, name_there: str | None, **options: object
) -> ModelOptions | None:
    """One model of a command line; None where neither a model nor an address is given.

    Args:
        role: `student` or `teacher`.
        path: what stands where a model can stand, which may be an address, too.
        url: of its own option.
        name_there: the model's name at the address.
        options: see `ModelOptions`.

    Raises:
        UserError: two addresses, an address that is none, or options of a server that is not started here.
    """
    if path is not None and is_engine(path):
        raise UserError(f"{role}: {path}: an engine of another package is for the Python API; give a model or a URL")
    if path is not None and is_endpoint(path):
        if url is not None:
            raise UserError(f"--{role}-url: {path} is an address, too; give one")
        path, url = None, path
    if path is None and url is None:
        useless = [f"--{role}-{name.replace('_', '-')}" for name in ("port", "gpus") if options.get(name)]
        useless += [f"--{role}-args"] if options.get("more") else []
        useless += [_length_option(role)] if options.get("max_model_len") is not None else []
        useless += [f"--{role}-model"] if name_there is not None else []
        if useless:
            raise UserError(f"{' and '.join(useless)}: only with a {role}; give --{role}-url, a folder or a hub id")
        return None
    model = ModelOptions(role, path, url, name_there, **options)  # type: ignore[arg-type]
    if url is not None:
        try:
            check_address(url, model.api_key_env)
        except ValueError as error:
            raise UserError(f"--{role}-url: {error}") from None
        own: dict[str, object] = {
            f"--{role}{end}": value for end, value in (("-port", model.port), ("-gpus", model.gpus))
        }
        own |= {f"--{role}-args": model.more, _length_option(role): model.max_model_len}
        if useless := [option for option, value in own.items() if value]:
            raise UserError(f"{' and '.join(useless)}: {url} runs already; these are for a server that is started here")
    elif name_there is not None:
        raise UserError(f"--{role}-model: {name_there!r}: for a {role} at an address, with --{role}-url")
    return model


def _length_option(role: str) -> str:
    return "--max-model-len" if role == "student" else f"--{role}-max-model-len"
