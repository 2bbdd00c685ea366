"""verl's composed config, read into types once at each door: our commands, what verl calls, the checks before a model
loads. Below a door the parts travel. Imports neither torch nor verl nor Ray nor Hydra.

Invariant: a part is read when it is first asked for, so that what is wrong in one part is reported by whoever needs it
and does not hide what is wrong in another.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeAlias

from omegaconf import OmegaConf
from omegaconf.errors import OmegaConfBaseException

from relay_verl.config import RelaySettings, TeacherSettings, read_settings
from relay_verl.distillation import DistillationSettings
from relay_verl.errors import UserError, as_user_error

if TYPE_CHECKING:
    from omegaconf import DictConfig

VerlConfig: TypeAlias = "DictConfig"
"""verl's config as Hydra composes it. Three kinds of code take it: what verl itself calls with it, what gives it to
verl or Ray or changes it for them, and what is about keys that only verl reads. All other code takes a `RunConfig` or a
part of one."""


@dataclass(frozen=True)
class PromptSettings:
    """How a row becomes a prompt: `data.apply_chat_template_kwargs`, and what `actor_rollout_ref.model` says of it."""

    template: Mapping[str, Any]
    """Arguments of the chat template."""
    tokenizer_path: str | None = None
    """Folder or hub id of the student's tokenizer; with its model if None."""
    chat_template: str | None = None
    """The recipe's own chat template for the student; the tokenizer's if None."""
    trust_remote_code: bool = False
    """Whether models and tokenizers may bring code of their own."""

    def tokenizer_of(self, model: str) -> str:
        """Where training reads the tokenizer of the student at `model`."""
        return self.tokenizer_path or model

    def spec(self, tokenizer: str | None) -> dict[str, Any]:
        """What else than the models and `template` decides a row's prompt, for a job's spec; None where a recipe leaves
        it to the model.

        Args:
            tokenizer: whose tokenizer was asked for.
        """
        return {"tokenizer": tokenizer, "chat_template": self.chat_template}


@dataclass(frozen=True)
class DataSettings:
    """The `data:` node: which files are read, and how."""

    files: Mapping[str, tuple[str, ...]]
    """By the key of the list, `train_files` or `val_files`: the names or addresses in it."""
    prompt_key: str
    """Column of the messages."""
    min_pass_rate: float
    """Least share of the teacher's samples that is right; 0 keeps every query (`relay.filter.min_pass_rate`)."""
    dataset_class: str | None
    """Name of the class that reads the files; verl's own if None."""
    batch_size: int | None
    """`train_batch_size`: queries of a step."""


@dataclass(frozen=True)
class Lengths:
    """Limits of a response, in tokens."""

    max_response: int
    """`data.max_response_length`: most tokens of a response."""
    max_context: int | None
    """`actor_rollout_ref.rollout.max_model_len`: most tokens of prompt and response together; None: no limit."""


@dataclass(frozen=True)
class TrainerSettings:
    """The `trainer:` node: where a run trains and where it writes."""

    folder: Path | None
    """`default_local_dir`, absolute: the folder of the run's checkpoints."""
    gpus_per_node: int
    """`n_gpus_per_node`."""
    num_nodes: int
    """`nnodes`."""
    device: str | None
    """`device`: cuda, cpu and so on."""
    saves: bool
    """Whether checkpoints are written: `save_freq` is above 0, or a word such as verl's `after_each_epoch`."""
    num_kept: int | None
    """`max_actor_ckpt_to_keep`: newest checkpoints that stay; all if None."""

    @property
    def num_gpus(self) -> int:
        """GPUs of the trainer, on all nodes."""
        return self.gpus_per_node * self.num_nodes

    @property
    def is_cpu(self) -> bool:
        """Whether it trains on CPU: the GPUs are then logical ones of Ray's."""
        return self.device == "cpu"


@dataclass(frozen=True, eq=False)
class RunConfig:
    """A composed config with the parts of it that our code reads.

    Raises:
        UserError: from each part, if a value in it is missing or wrong; names the key.
    """

    verl: VerlConfig
    """The config itself, for verl's classes and for Ray."""

    @property
    def has_relay(self) -> bool:
        """Whether it has our node: verl composes other configs too."""
        return self.verl.get("relay") is not None

    @cached_property
    def relay(self) -> RelaySettings:
        """The `relay:` node."""
        return read_settings(self.verl.get("relay"))

    @cached_property
    def distillation(self) -> DistillationSettings | None:
        """The `distillation:` node of a run that distils; None of one that does not."""
        if not _select(self.verl, "distillation.enabled"):
            return None
        loss = "distillation.distillation_loss"
        clamp, topk = _select(self.verl, f"{loss}.log_prob_min_clamp"), f"{loss}.topk"
        return DistillationSettings(
            loss=str(_select(self.verl, f"{loss}.loss_mode")),
            topk=None if _select(self.verl, topk) is None else _integer(self.verl, topk),
            log_prob_min_clamp=None if clamp is None else float(clamp),
        )

    @property
    def teachers(self) -> dict[str, TeacherSettings]:
        """The teachers that run, by the key that says so: they answer calls, or score what the student wrote."""
        is_needed = self.relay.needs_teacher or self.distillation is not None
        return self.relay.active_teachers if is_needed else {}

    @property
    def is_grpo(self) -> bool:
        """Whether it is for verl's PPO trainer; verl's SFT trainer, which warms a student up, has another config."""
        return "actor_rollout_ref" in self.verl

    @property
    def student_path(self) -> str | None:
        """`actor_rollout_ref.model.path`, or `model.path` of a warm-up; None where no student is given yet."""
        path = _select(self.verl, "actor_rollout_ref.model.path" if self.is_grpo else "model.path")
        return None if path is None else str(path)

    @property
    def student(self) -> str | None:
        """The student's address; where none is given yet, that of the model it is warmed up from, which has the same
        shape and the same tokenizer."""
        return self.student_path or _select(self.verl, "relay.warmup.base_model")

    @cached_property
    def prompts(self) -> PromptSettings:
        """How a row becomes a prompt."""
        template = _select(self.verl, "data.apply_chat_template_kwargs") or {}
        model = "actor_rollout_ref.model"
        return PromptSettings(
            template=OmegaConf.to_container(template, resolve=True) if OmegaConf.is_config(template) else template,  # type: ignore[arg-type]
            tokenizer_path=_select(self.verl, f"{model}.tokenizer_path"),
            chat_template=_select(self.verl, f"{model}.custom_chat_template"),
            trust_remote_code=bool(_select(self.verl, f"{model}.trust_remote_code")),
        )

    @cached_property
    def data(self) -> DataSettings:
        """Which files are read, and how."""
        batch = "data.train_batch_size"
        return DataSettings(
            files={key: _names(_select(self.verl, f"data.{key}")) for key in ("train_files", "val_files")},
            prompt_key=_select(self.verl, "data.prompt_key"),
            min_pass_rate=_select(self.verl, "data.min_pass_rate") or 0,
            dataset_class=_select(self.verl, "data.custom_cls.name"),
            batch_size=None if _select(self.verl, batch) is None else _integer(self.verl, batch),
        )

    @cached_property
    def lengths(self) -> Lengths:
        """Limits of a response."""
        context = "actor_rollout_ref.rollout.max_model_len"
        return Lengths(
            max_response=_integer(self.verl, "data.max_response_length"),
            max_context=None if _select(self.verl, context) is None else _integer(self.verl, context),
        )

    @cached_property
    def trainer(self) -> TrainerSettings:
        """Where a run trains and where it writes."""
        folder = _select(self.verl, "trainer.default_local_dir")
        freq, kept = _select(self.verl, "trainer.save_freq"), "trainer.max_actor_ckpt_to_keep"
        return TrainerSettings(
            folder=Path(folder).expanduser().absolute() if folder else None,
            gpus_per_node=_integer(self.verl, "trainer.n_gpus_per_node", 1),
            num_nodes=_integer(self.verl, "trainer.nnodes", 1),
            device=_select(self.verl, "trainer.device"),
            saves=isinstance(freq, str) or (freq or 0) > 0,
            num_kept=None if _select(self.verl, kept) is None else _integer(self.verl, kept),
        )

    def changed(self, key: str, value: Any) -> RunConfig:
        """The same with one more key of verl's at another value, all of it; this one stays as it is."""
        copy = self.verl.copy()
        OmegaConf.update(copy, key, value, merge=False)
        return RunConfig(copy)


def read_all(configs: Mapping[str, VerlConfig]) -> dict[str, RunConfig]:
    """Several composed configs, by the same names."""
    return {name: RunConfig(config) for name, config in configs.items()}


def _select(config: VerlConfig, key: str) -> Any:
    """The value at a dotted key; None where the config has no such key.

    Raises:
        UserError: an interpolation without a value.
    """
    with as_user_error(OmegaConfBaseException, lambda error: f"{key}: {str(error.msg or error).splitlines()[0]}"):
        return OmegaConf.select(config, key)


def _names(files: Any) -> tuple[str, ...]:
    """A key of verl's that may be a name or a list of names."""
    return (files,) if isinstance(files, str) else tuple(files or ())


def _integer(config: VerlConfig, key: str, default: int | None = None) -> int:
    """The whole number at a dotted key; `default` where the config has none.

    Raises:
        UserError: it is not a whole number, or is missing and has no default.
    """
    value = _select(config, key)
    if value is None and default is not None:
        return default
    try:
        return int(value)
    except (TypeError, ValueError):
        raise UserError(f"{key}: {value!r}: expected a whole number") from None


def resolve(config: VerlConfig) -> None:
    """Put the values of a composed config's interpolations into it, as they are in this process.

    Workers, those of other nodes too, may have other variables and other packages: what was checked here is what they
    get.

    Raises:
        UserError: one has no value; names the key.
    """
    check_references(config)
    OmegaConf.resolve(config)


def check_references(config: VerlConfig) -> None:
    """Each interpolation of a composed config, such as `${oc.env:RELAY_STUDENT}`, has a value in this process.

    Raises:
        UserError: one has none; names the key.
    """
    with as_user_error(
        OmegaConfBaseException, lambda error: f"{error.full_key}: {str(error.msg or error).splitlines()[0]}"
    ):
        OmegaConf.to_container(config, resolve=True)
