"""Checks of a composed config in the driver, before Ray starts and before any model loads.

`install` puts them in front of functions that verl calls there. A bad input ends the program with one line
that names the key, the value and what is allowed.
"""

from __future__ import annotations

import asyncio
import difflib
import functools
import os
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from omegaconf import OmegaConf

from relay_verl import ending
from relay_verl.catalog.choice import check_recipe_choice
from relay_verl.catalog.recipe import recipe_names
from relay_verl.checkpoints.guard import check_resume
from relay_verl.cluster import num_gpus_of
from relay_verl.config import ConfigError, RelaySettings, TeacherSettings, read_settings
from relay_verl.data.solvability import COLUMN, solvable_rows
from relay_verl.engines.base import EngineError
from relay_verl.engines.endpoint import EndpointEngine
from relay_verl.routing import teachers_for

ENDPOINT_DEADLINE_S = 20.0
PROBE = "What is 7*8? <call>20</call> Let's see: \\boxed{56}\n\n\u00e9\u4e2d"


def install(module: Any, function: str, check: Callable[[Any], None]) -> None:
    """Put `check` of the composed config in front of a function of verl's that is given it; a second call does nothing.

    Remove the wrapping when verl offers plugins a hook on the composed config.
    """
    original = getattr(module, function)
    if getattr(original, "is_relay_preflight", False):
        return

    @functools.wraps(original)
    def checked(config: Any, *args: Any, **kwargs: Any) -> Any:
        try:
            check(config)
        except ConfigError as error:
            sys.exit(f"relay_verl: {error}")
        return original(config, *args, **kwargs)

    checked.is_relay_preflight = True  # type: ignore[attr-defined]
    setattr(module, function, checked)


def check_config(config: Any) -> None:
    """Everything that can be known before a model loads.

    Raises:
        ConfigError: one line on the first thing that is wrong.
    """
    check_recipe_was_found(config)
    check_recipe_choice(config)
    if "relay" not in config:
        return
    settings = read_settings(config.relay)
    check_platform(config)
    check_batch_sizes(config)
    check_micro_batch_sizes(config)
    check_declared_gpus(config, settings)
    for key in ("train_files", "val_files"):
        check_dataset(config, key)
    student = check_model_path("actor_rollout_ref.model.path", config.actor_rollout_ref.model.path)
    check_resume(config)
    if settings.needs_teacher:
        check_data_sources(config, settings)
        for key, teacher in settings.active_teachers.items():
            check_teacher(key, teacher, student)
    ending.install()


def check_sft_config(config: Any) -> None:
    """The same for verl's SFT trainer and the warm-up recipes.

    Raises:
        ConfigError: one line on the first thing that is wrong.
    """
    check_recipe_choice(config)
    if "actor_rollout_ref" in config:
        return  # the GRPO trainer's config has `check_config`
    check_recipe_was_found(config)
    if config.data.custom_cls.get("name") != "WarmupDataset":
        return
    on_cpu = os.environ.get("VERL_PLATFORM", "") == "cpu"
    if (config.trainer.device == "cpu") != on_cpu:
        raise ConfigError(
            f"trainer.device={config.trainer.device}: "
            + ("VERL_PLATFORM=cpu is for CPU recipes: unset it" if on_cpu else "set VERL_PLATFORM=cpu")
        )
    check_model_path("model.path", config.model.path)
    check_columns(config, "train_files", ("input_ids", "loss_mask", "is_finished"))


def check_recipe_was_found(config: Any) -> None:
    """`+recipe=NAME` loads a recipe only if Hydra knows the group; else it sets a key, and plain PPO would run."""
    for key in config:
        if key != "relay" and difflib.get_close_matches(str(key), ["recipe", "recipes"], cutoff=0.75):
            raise ConfigError(
                f"{key}={config[key]}: no recipe was loaded; write +recipe=NAME with one of {', '.join(recipe_names())}"
            )


def check_platform(config: Any) -> None:
    """A CPU recipe needs `VERL_PLATFORM=cpu` in the driver too, and only a CPU recipe may have it.

    verl sets `trainer.device` to what it detects, so the recipe's own word is the platform it gives to Ray's workers.
    """
    in_driver = os.environ.get("VERL_PLATFORM", "")
    in_workers = OmegaConf.select(config, "ray_kwargs.ray_init.runtime_env.env_vars.VERL_PLATFORM") or ""
    if (in_workers == "cpu") != (in_driver == "cpu"):
        raise ConfigError(
            f"VERL_PLATFORM={in_driver!r} in the environment, but the recipe "
            + ("trains on CPU: set VERL_PLATFORM=cpu" if in_workers == "cpu" else "does not train on CPU: unset it")
        )


def check_batch_sizes(config: Any) -> None:
    """The batch must split into mini-batches, and those over the GPUs."""
    batch, mini = config.data.train_batch_size, config.actor_rollout_ref.actor.ppo_mini_batch_size
    num_gpus = config.trainer.n_gpus_per_node * config.trainer.nnodes
    positive = {
        "data.train_batch_size": batch,
        "actor_rollout_ref.actor.ppo_mini_batch_size": mini,
        "actor_rollout_ref.rollout.n": config.actor_rollout_ref.rollout.n,
        "trainer.n_gpus_per_node x trainer.nnodes": num_gpus,
    }
    for key, value in positive.items():
        if value < 1:
            raise ConfigError(f"{key}={value} is not at least 1")
    if batch % mini:
        raise ConfigError(
            f"data.train_batch_size={batch} is not a multiple of actor_rollout_ref.actor.ppo_mini_batch_size={mini}"
        )
    rows = mini * config.actor_rollout_ref.rollout.n
    if rows % num_gpus:
        raise ConfigError(
            f"actor_rollout_ref.actor.ppo_mini_batch_size={mini} x actor_rollout_ref.rollout.n="
            f"{config.actor_rollout_ref.rollout.n} samples do not split over trainer.n_gpus_per_node x trainer.nnodes="
            f"{num_gpus} GPUs"
        )


def check_micro_batch_sizes(config: Any) -> None:
    """Without dynamic batches, each GPU's rows must split into its micro-batches."""
    parts = config.actor_rollout_ref
    if parts.actor.use_dynamic_bsz:
        return
    num_gpus = config.trainer.n_gpus_per_node * config.trainer.nnodes
    mini_rows = parts.actor.ppo_mini_batch_size * parts.rollout.n // num_gpus
    all_rows = config.data.train_batch_size * parts.rollout.n // num_gpus
    for key, rows in (
        ("actor_rollout_ref.actor.ppo_micro_batch_size_per_gpu", mini_rows),
        ("actor_rollout_ref.rollout.log_prob_micro_batch_size_per_gpu", all_rows),
        ("actor_rollout_ref.ref.log_prob_micro_batch_size_per_gpu", all_rows),
    ):
        micro = OmegaConf.select(config, key)
        if micro is not None and (micro < 1 or rows % micro):
            raise ConfigError(f"{key}={micro}: a GPU's {rows} samples do not split into micro-batches of that size")


def check_declared_gpus(config: Any, settings: RelaySettings) -> None:
    """Where the recipe says how many GPUs Ray has, they must hold the trainer and the teacher; where Ray counts them
    itself, `relay_verl.teacher.check_resources` does this once it has."""
    declared = OmegaConf.select(config, "ray_kwargs.ray_init.num_gpus")
    teachers = settings.active_teachers
    trainer = config.trainer.n_gpus_per_node * config.trainer.nnodes
    wanted = num_gpus_of(teachers.values()) if settings.needs_teacher else 0
    if declared is not None and declared < trainer + wanted:
        raise ConfigError(
            f"ray_kwargs.ray_init.num_gpus={declared}: the trainer takes {trainer} (trainer.n_gpus_per_node x "
            f"trainer.nnodes) and the teacher {wanted} "
            f"({' + '.join(f'{key}.num_replicas x {key}.tensor_parallel_size' for key in teachers)}); "
            f"{trainer + wanted - declared} missing"
        )


def check_dataset(config: Any, key: str) -> None:
    """Every parquet file is there and has a prompt and an answer; for training also pass counts, if they are needed."""
    import pyarrow as pa

    for name, schema in check_columns(config, key, (config.data.prompt_key, "reward_model")).items():
        answer = schema.field("reward_model").type
        names = [field.name for field in answer] if pa.types.is_struct(answer) else []
        if "ground_truth" not in names:
            raise ConfigError(
                f"data.{key}: {name} has no answers: column 'reward_model' has no field 'ground_truth'; "
                f"it has {', '.join(names) or 'none'}"
            )
        if key == "train_files" and config.data.get("min_pass_rate"):
            check_pass_counts(name, schema, config.data.min_pass_rate)


def check_pass_counts(name: str, schema: Any, min_pass_rate: float) -> None:
    """The teacher's pass counts are there, and leave queries to train on."""
    import pyarrow.parquet as pq

    if COLUMN not in schema.names:
        raise ConfigError(
            f"data.train_files: {name} has no column {COLUMN!r}, which relay.filter.min_pass_rate={min_pass_rate} "
            "needs: make it with `relay-verl filter`, or set relay.filter.min_pass_rate=0 to train on every query"
        )
    try:
        solvable_rows(pq.read_table(Path(name).expanduser(), columns=[COLUMN])[COLUMN].to_pylist(), min_pass_rate)
    except ValueError as error:
        raise ConfigError(f"data.train_files: {name}: {error}") from None


def check_columns(config: Any, key: str, columns: Sequence[str]) -> dict[str, Any]:
    """Every file of `data.KEY` is there; gives the schema of each parquet file, which has `columns`."""
    import pyarrow.parquet as pq

    files = config.data.get(key)
    schemas = {}
    for name in [files] if isinstance(files, str) else list(files or []):
        if "://" in name:
            continue
        path = Path(name).expanduser()
        if not path.exists():
            raise ConfigError(f"data.{key}: {name} does not exist")
        if path.suffix != ".parquet":
            continue
        try:
            schema = pq.read_schema(path)
        except (OSError, ValueError) as error:
            raise ConfigError(f"data.{key}: {name} is not a readable parquet file: {error}") from None
        for column in columns:
            if column not in schema.names:
                raise ConfigError(f"data.{key}: {name} has no column {column!r}; it has {', '.join(schema.names)}")
        schemas[name] = schema
    return schemas


def check_model_path(key: str, path: str) -> str:
    """A local model folder must exist; a hub id and a remote address are left to who serves them."""
    if "://" in path:
        return path
    local = Path(path).expanduser()
    looks_local = local.is_absolute() or path.startswith((".", "~")) or path.count("/") > 1
    if looks_local and not (local / "config.json").is_file():
        what = "has no config.json" if local.is_dir() else "does not exist"
        raise ConfigError(f"{key}: {path} {what}; give a Hugging Face model folder or a hub id")
    return path


def check_data_sources(config: Any, settings: RelaySettings) -> None:
    """Every query of the parquet files has a teacher; where one answers all, there is nothing to check."""
    import pyarrow.parquet as pq

    teachers = list(settings.active_teachers.values())
    if any(teacher.data_sources is None for teacher in teachers):
        return
    named = ", ".join(dict.fromkeys(name for teacher in teachers for name in teacher.data_sources or ()))
    for key in ("train_files", "val_files"):
        for name in check_columns(config, key, ("data_source",)):
            for source in pq.read_table(Path(name).expanduser(), columns=["data_source"])[0].unique().to_pylist():
                if not teachers_for(teachers, source):
                    raise ConfigError(
                        f"data.{key}: {name} has data_source={source!r}, which no teacher answers; their data_sources: "
                        f"{named}; a teacher without data_sources answers all others"
                    )


def check_teacher(key: str, teacher: TeacherSettings, student_path: str) -> None:
    """The teacher of the recipe's `key` is there, and reads the student's token ids or stands behind a text bridge."""
    address = teacher.path or teacher.base_url
    name = f"{key}.path: {address}" if teacher.path is not None else f"{key}.base_url: {address}"
    student = read_tokenizer("actor_rollout_ref.model.path", student_path)
    if teacher.path is not None:
        check_model_path(f"{key}.path", teacher.path)
    if teacher.own_tokenizer is not None:
        readers_path = teacher.own_tokenizer
        reader = read_tokenizer(f"{key}.tokenizer" if teacher.tokenizer else f"{key}.path", readers_path)
        check_bridged_tokenizer(f"{key}.text_bridge: {readers_path}", student, reader)
    else:
        readers_path, reader = f"the student {student_path}", student
    difference = ""
    if teacher.path is not None and reader is student:
        difference = compare_tokenizers(student, read_tokenizer(f"{key}.path", teacher.path))
    elif teacher.base_url is not None:
        try:
            theirs = asyncio.run(_tokenize_at_endpoint(teacher))
        except (EngineError, TimeoutError) as error:
            raise ConfigError(f"{name} does not answer: {error or 'no answer in time'}") from None
        ours = reader.encode(PROBE, add_special_tokens=False)
        difference = "" if theirs in (None, ours) else f"{PROBE!r} is {ours} and {theirs}"
    if difference:
        advice = "" if teacher.text_bridge else f"; {key}.text_bridge=true passes text between them"
        raise ConfigError(f"{name} and {readers_path} differ in their tokenizers: {difference}{advice}")


def read_tokenizer(key: str, path: str) -> Any:
    """The tokenizer at a folder or hub id.

    Raises:
        ConfigError: there is none.
    """
    from transformers import AutoTokenizer

    try:
        return AutoTokenizer.from_pretrained(path)
    except (OSError, ValueError) as error:
        raise ConfigError(f"{key}: {path} has no tokenizer that loads: {str(error).splitlines()[0]}") from None


def check_bridged_tokenizer(name: str, student: Any, teacher: Any) -> None:
    """A text bridge can read and write by the teacher's tokenizer; warns of what it costs."""
    for what, is_there in (
        ("end-of-sequence token", teacher.eos_token_id is not None),
        ("chat template", bool(teacher.chat_template)),
    ):
        if not is_there:
            raise ConfigError(f"{name} has no {what} in its tokenizer, which a text bridge needs")
    if compare_tokenizers(student, teacher):
        cost = (
            "has another tokenizer than the student: its context is decoded and encoded again for each call, lengths "
            "are counted in the student's tokens, and its prefix cache holds less"
        )
    else:
        cost = "has the student's tokenizer: without the bridge it would read the same ids"
    print(f"relay_verl: {name} {cost}", file=sys.stderr)


async def _tokenize_at_endpoint(teacher: TeacherSettings) -> list[int] | None:
    assert teacher.base_url is not None
    endpoint = EndpointEngine(
        teacher.base_url, teacher.model, api_key_env=teacher.api_key_env, timeout_s=ENDPOINT_DEADLINE_S
    )
    async with asyncio.timeout(ENDPOINT_DEADLINE_S):
        await endpoint.model()
        return await endpoint.tokenize(PROBE)


def compare_tokenizers(student: Any, teacher: Any) -> str:
    """How two tokenizers differ; empty if token ids mean the same to both."""
    ours, theirs = student.get_vocab(), teacher.get_vocab()
    if ours != theirs:
        different = [token for token in ours if theirs.get(token) != ours[token]]
        extra = len(theirs.keys() - ours.keys())
        example = f", e.g. {different[0]!r} is {ours[different[0]]} and {theirs.get(different[0])}" if different else ""
        return (
            f"{len(different)} of {len(ours)} tokens have another id or none{example}; {extra} are only the teacher's"
        )
    if student.eos_token_id != teacher.eos_token_id:
        return f"the end-of-sequence token is {student.eos_token!r} and {teacher.eos_token!r}"
    if student.encode(PROBE, add_special_tokens=False) != teacher.encode(PROBE, add_special_tokens=False):
        return f"same vocabulary, but they split {PROBE!r} differently"
    return ""
