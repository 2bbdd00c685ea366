"""Teachers: each a worker group of vLLM replicas in Ray with GPUs of its own, an endpoint by URL (paper 4.3), or an
engine of another package.

Invariant: what comes out is a TokenEngine that can be sent to any Ray worker; a teacher that cannot start says why and
never waits without a deadline.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Mapping
from typing import Any

from relay_verl.config import TeacherSettings, num_gpus_of
from relay_verl.defer.engine_head import EngineHead
from relay_verl.engines.base import TokenEngine
from relay_verl.engines.chat import ChatEngine
from relay_verl.engines.chat_prefix import ChatPrefix
from relay_verl.engines.endpoint import EndpointEngine
from relay_verl.engines.factory import make_engine
from relay_verl.errors import EngineError, UserError
from relay_verl.models.address import check_folder_name
from relay_verl.models.deferring import with_head
from relay_verl.models.pretrained import trusts
from relay_verl.models.replica_restart import ray_name_of
from relay_verl.models.reservation import find_reserved, reserve, start_in
from relay_verl.models.teacher_group import TeacherGroup, guard, open_replicas
from relay_verl.models.tokenizers import read_tokenizer
from relay_verl.run_config import PromptSettings, RunConfig

logger = logging.getLogger(__name__)


async def start_teachers(run: RunConfig, tokenizer: Any) -> dict[str, TeacherGroup]:
    """Start all teachers of a run side by side; gives them by label.

    Args:
        run: a composed recipe.
        tokenizer: the student's.

    Raises:
        UserError: the cluster lacks the resources for all of them, or one did not start in time.
    """
    teachers = list(run.relay.active_teachers.values())
    anywhere = [teacher for teacher in teachers if teacher.node_resource is None]
    if len(anywhere) > 1 and (needed := num_gpus_of(anywhere)):
        import ray

        check_resources(ray.available_resources(), needed, f"the {len(anywhere)} teachers")
    starts = (
        start_teacher(run, teacher, load_tokenizer(teacher, tokenizer, run.prompts), name=suffix_of(index))
        for index, teacher in enumerate(teachers)
    )
    groups = await asyncio.gather(*starts)
    return {teacher.label: group for teacher, group in zip(teachers, groups, strict=True) if group is not None}


def suffix_of(index: int) -> str:
    """What tells the actors of one teacher from those of another."""
    return str(index) if index else ""


def load_tokenizer(teacher: TeacherSettings, students: Any, prompts: PromptSettings | None = None) -> Any:
    """What a teacher reads and writes with: its own tokenizer behind a text bridge, else the student's.

    Raises:
        UserError: its own does not load.
    """
    if teacher.own_tokenizer is None:
        return students
    return read_tokenizer(f"the tokenizer of {teacher.label}", teacher.own_tokenizer, prompts)


def open_endpoint(settings: TeacherSettings, tokenizer: Any = None, template: Mapping[str, Any] = {}) -> EndpointEngine:
    """The engine at `settings.base_url`.

    Args:
        settings: its address, and how it is asked.
        tokenizer: the student's, which a chat API's answers are written in.
        template: arguments of the chat template, which a chat API applies by itself.
    """
    assert settings.base_url is not None
    options: dict[str, Any] = {
        "api_key_env": settings.api_key_env,
        "timeout_s": settings.timeout_s,
        "num_retries": settings.num_retries,
    }
    if not settings.reads_messages:
        return EndpointEngine(settings.base_url, settings.model, **options)
    return ChatEngine(
        settings.base_url,
        settings.model,
        tokenizer,
        prefix=ChatPrefix(settings.chat_prefix),
        falls_back=settings.chat_fallback,
        template=template,
        **options,
    )


async def start_teacher(
    run: RunConfig, settings: TeacherSettings, tokenizer: Any, *, is_teacher: bool = True, name: str = ""
) -> TeacherGroup | None:
    """Start the teacher of a run, or another model by itself; None if the settings name none.

    Raises:
        UserError: the cluster lacks the resources, or the replicas did not start within `start_timeout_s`.
    """
    if settings.base_url is not None:
        endpoint = open_endpoint(settings, tokenizer, run.prompts.template)
        return TeacherGroup(guard(endpoint, settings), [])
    if settings.engine is not None:
        return TeacherGroup(guard(make_engine(settings.engine, settings, tokenizer), settings), [])
    if settings.path is None:
        return None
    check_folder_name("model", settings.path)
    import ray

    if settings.node_resource is not None:
        await asyncio.to_thread(reserve, settings, run.trainer.gpus_per_node, name=name)
    else:
        needed = settings.num_replicas * settings.tensor_parallel_size
        what = f"num_replicas={settings.num_replicas} x tensor_parallel_size={settings.tensor_parallel_size}"
        check_resources(ray.available_resources(), needed, what)
    group = asyncio.create_task(
        start_replicas(run, settings, settings.path, tokenizer, is_teacher=is_teacher, name=name)
    )
    try:
        engine, replicas = await asyncio.wait_for(group, settings.start_timeout_s)
    except TimeoutError:
        raise UserError(
            f"relay.teacher.start_timeout_s: the {settings.num_replicas} teacher replica(s) did not start within "
            f"{settings.start_timeout_s:g} s; the vLLM log above says how far they came"
        ) from None
    return TeacherGroup(guard(engine, settings), replicas, settings.start_timeout_s)


def check_resources(available: Mapping[str, float], needed: int, what: str) -> None:
    """Raise UserError if the cluster cannot hold the teacher next to what runs already.

    Args:
        available: Ray's free resources by name.
        needed: GPUs.
        what: who needs them, for the message.
    """
    from verl.plugin.platform.platform_manager import get_platform

    resource = get_platform().ray_resource_name()
    free = available.get(resource, 0.0)
    if free < needed:
        raise UserError(
            f"relay.teacher: {what} need {needed} {resource} but the cluster has {free:g} free; add "
            f"{needed - free:g}, or lower trainer.n_gpus_per_node or the teacher's numbers"
        )


async def start_replicas(
    run: RunConfig, settings: TeacherSettings, path: str, tokenizer: Any, *, is_teacher: bool, name: str = ""
) -> tuple[TokenEngine, list[Any]]:
    """Start standalone rollout replicas of the model at `path`, and a client over them.

    Args:
        run: a composed recipe; its rollout section says how replicas run, but for what `settings` sets.
        settings: replicas, parallelism, memory.
        path: Hugging Face folder or hub id.
        tokenizer: the model's.
        is_teacher: names the actors.
        name: suffix of the actors' names, for more than one group a cluster.
    """
    from omegaconf import OmegaConf
    from verl.workers.rollout.replica import get_rollout_replica_class

    rollout = OmegaConf.create(OmegaConf.to_container(run.verl.actor_rollout_ref.rollout, resolve=True))
    OmegaConf.set_struct(rollout, False)
    rollout.update(
        load_format="auto",
        tensor_model_parallel_size=settings.tensor_parallel_size,
        data_parallel_size=1,
        gpu_memory_utilization=settings.gpu_memory_utilization,
        max_num_seqs=settings.max_num_seqs,
        free_cache_engine=False,
        enable_sleep_mode=False,
        dtype=settings.dtype or rollout.dtype,
        disable_log_stats=False,  # the counters that tell whether a silent engine is busy
    )
    model = OmegaConf.create(
        {
            "_target_": "verl.workers.config.HFModelConfig",
            "path": path,
            "trust_remote_code": trusts(run.prompts),
        }
    )
    gpus_per_node = run.trainer.gpus_per_node
    replica_class = get_rollout_replica_class(rollout.name)
    replicas = [
        replica_class(
            replica_rank=rank,
            config=rollout,
            model_config=model,
            gpus_per_node=min(settings.tensor_parallel_size, gpus_per_node),
            is_teacher_model=is_teacher,
            name_suffix=name,
        )
        for rank in range(settings.num_replicas)
    ]
    nodes = [find_reserved(settings, rank, gpus_per_node, name=name) for rank in range(settings.num_replicas)]
    await asyncio.gather(*(start_in(replica, groups) for replica, groups in zip(replicas, nodes, strict=True)))
    servers = {replica.server_address: replica.server_handle for replica in replicas}
    ray_names = await asyncio.gather(*(actor.__ray_call__.remote(ray_name_of) for actor in servers.values()))
    names = dict(zip(servers, ray_names, strict=True))
    return open_replicas(run, servers, path, tokenizer, ray_names=names), replicas


async def start_models(
    run: RunConfig,
    models: Mapping[str, TeacherSettings],
    tokenizer: Any,
    *,
    heads: Mapping[str, EngineHead] = {},
) -> dict[str, TokenEngine]:
    """Start the models side by side, each by its own settings; gives their engines by the same names.

    Args:
        run: a composed recipe.
        models: by name.
        tokenizer: that of all of them.
        heads: the defer heads that some of them have, by name.

    Raises:
        UserError: the cluster lacks the GPUs, or they did not start within `relay.teacher.start_timeout_s`.
    """
    import ray

    from relay_verl.models.launch import check_resources, start_teacher

    needed = num_gpus_of(models.values())
    if needed:
        check_resources(ray.available_resources(), needed, f"{len(models)} models")
    starts = (
        start_teacher(
            with_head(run, heads[name]) if name in heads else run,
            settings,
            tokenizer,
            is_teacher=False,
            name=f"model{index}",
        )
        for index, (name, settings) in enumerate(models.items())
    )
    timeout_s = run.relay.teacher.start_timeout_s
    try:
        async with asyncio.timeout(timeout_s):
            engines = [group.engine for group in await asyncio.gather(*starts) if group is not None]
            # An engine's first request makes what later ones use. A chat API has nothing to make, and bills it.
            own = [one for one, model in zip(engines, models.values(), strict=True) if not model.reads_messages]
            warm_up = [tokenizer.eos_token_id]
            await asyncio.gather(*(engine.generate(warm_up, max_tokens=1, request_id="warm-up") for engine in own))
    except TimeoutError:
        names = ", ".join(str(model.address) for model in models.values())
        raise UserError(f"relay.teacher.start_timeout_s: {names} did not start within {timeout_s:g} s") from None
    except EngineError as error:
        raise UserError(f"a model does not answer: {error}") from None
    return dict(zip(models, engines, strict=True))
