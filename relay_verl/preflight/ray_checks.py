"""The checks that need Ray: the cluster can be joined, has room, and every node of it can take part."""

from __future__ import annotations

import platform
import time
from collections.abc import Callable
from functools import cached_property
from typing import Any

from omegaconf import OmegaConf

from relay_verl import cpu
from relay_verl.engines.factory import find_engine
from relay_verl.errors import UserError
from relay_verl.models.address import is_local
from relay_verl.models.launch import suffix_of
from relay_verl.models.ray_session import start_ray
from relay_verl.models.reservation import reserve
from relay_verl.policies import parse_policy
from relay_verl.preflight.check import CheckWarning
from relay_verl.preflight.cpu_memory import GB, check_cpu_memory, cpu_terms
from relay_verl.preflight.placement import FreeNode, check_room
from relay_verl.preflight.probe import Answer, ask_nodes, expected, fault_of
from relay_verl.rewards import find_reward
from relay_verl.run_config import RunConfig

SETTLE_S = 5.0
"""Seconds that resources may take to be reported as free, after who held them ended."""


class Cluster:
    """The Ray cluster of a run. What it is asked for is asked once."""

    def __init__(self, run: RunConfig):
        self.run = run
        self.is_own = False
        """Whether it was started here, for this run: its workers have the environment of this process."""

    def join(self, **changes: Any) -> str:
        """Start Ray as verl's trainer does it, or join what runs.

        Raises:
            UserError: that fails; says why.
        """
        import ray

        self.is_own = start_ray(self.run, **changes)
        return f"Ray {ray.__version__} on Python {platform.python_version()}, {len(self.alive)} node(s)"

    @cached_property
    def alive(self) -> list[dict[str, Any]]:
        """Ray's description of each node that is alive."""
        import ray

        return [node for node in ray.nodes() if node["Alive"]]

    def free(self) -> list[FreeNode]:
        """What no one holds now, by node."""
        import ray
        from verl.plugin.platform.platform_manager import get_platform

        resource = get_platform().ray_resource_name()
        available = ray._private.state.available_resources_per_node()  # as verl's resource pools look at it
        free = [(node, available.get(node["NodeID"], {})) for node in self.alive]
        return [
            FreeNode(
                node["NodeID"],
                node["NodeManagerAddress"],
                has.get(resource, 0.0),
                frozenset(node["Resources"]),
            )
            for node, has in free
        ]

    @cached_property
    def answers(self) -> list[tuple[dict[str, Any], Answer]]:
        """Each node that can run anything, with what a worker finds there."""
        nodes = [node for node in self.alive if node["Resources"].get("CPU") or node["Resources"].get("GPU")]
        paths, modules = [path for _, path in local_models(self.run)], modules_of_others(self.run)
        answers = ask_nodes([node["NodeID"] for node in nodes], paths, modules, imports_verl=not self.is_own)
        return [(node, answers[node["NodeID"]]) for node in nodes]


def local_models(run: RunConfig) -> list[tuple[str, str]]:
    """The models of a composed config that are folders: key and path."""
    models = [("actor_rollout_ref.model.path", run.student_path)]
    if run.has_relay:
        models += [(f"{key}.path", teacher.path) for key, teacher in run.teachers.items()]
    return [(key, path) for key, path in models if path and "://" not in path and is_local(path)]


def modules_of_others(run: RunConfig) -> list[str]:
    """The modules of other packages that workers import: those of the policy, the reward and the teachers' engines."""
    if not run.has_relay:
        return []
    settings = run.relay
    engines = [teacher.engine for teacher in run.teachers.values()]
    objects = [
        parse_policy(settings.policy).kind,
        find_reward(settings.reward.kind).compute,
        *(find_engine(name) for name in engines if name is not None),
    ]
    modules = dict.fromkeys(each.__module__ for each in objects)
    return [module for module in modules if module.partition(".")[0] != "relay_verl"]


def check_ray(run: RunConfig, cluster: Cluster) -> str:
    """Ray starts, or the cluster can be joined."""
    return cluster.join()


def check_placement(run: RunConfig, cluster: Cluster) -> str:
    """The trainer and the teacher find GPUs."""
    return _settled(lambda: check_room(run, cluster.free()))


def check_teacher_nodes(run: RunConfig, cluster: Cluster) -> str:
    """The teachers that are to have nodes of their own get them, before the trainer takes any."""
    names = []
    for index, teacher in enumerate(run.teachers.values()):
        reserve(teacher, run.trainer.gpus_per_node, name=suffix_of(index))
        names += [teacher.node_resource] if teacher.node_resource else []
    return f"reserved: {', '.join(names)}" if names else "wherever GPUs are free"


def check_workers(run: RunConfig, cluster: Cluster) -> str:
    """A worker on every node loads the plugin in the same versions."""
    ours = expected()
    for node, answer in cluster.answers:
        fault = fault_of(answer, ours, has_gpus=bool(node["Resources"].get("GPU")))
        if fault:
            raise UserError(f"Ray node {node['NodeManagerAddress']}: {fault}")
    what = "workers start" if cluster.is_own else "the plugin is loaded"
    return f"{what} on {len(cluster.answers)} node(s), with the versions of this process"


def check_models_there(run: RunConfig, cluster: Cluster) -> str:
    """A model that is a folder is one on every node."""
    models = local_models(run)
    for node, answer in cluster.answers:
        for key, path in models:
            if path in answer["missing"]:
                raise UserError(
                    f"{key}: {path} does not exist on the Ray node {node['NodeManagerAddress']}; use a disk that all "
                    "nodes share, copy it to the same place there, or give a hub id"
                )
    return f"{len(models)} folder(s) on {len(cluster.answers)} node(s)"


def check_memory(run: RunConfig, cluster: Cluster) -> str:
    """Shared memory for weights and objects; on CPU also memory for both models."""
    key = "actor_rollout_ref.rollout.checkpoint_engine.update_weights_bucket_megabytes"
    bucket = OmegaConf.select(run.verl, key) * 2**20 * run.trainer.gpus_per_node
    terms = cpu_terms(run) if cpu.is_chosen() else {}
    warnings, texts = [], []
    for node, answer in cluster.answers:
        where = f"Ray node {node['NodeManagerAddress']}"
        if answer["shm"]:
            total, free = answer["shm"]
            if cpu.is_chosen() and free < bucket:
                raise UserError(
                    f"{where}: /dev/shm has {free / GB:.2f} GB free, and weights travel through {bucket / GB:.2f} GB "
                    f"of it: make it larger (docker's --shm-size), or lower {key}"
                )
            if total < GB:
                warnings.append(
                    f"{where}: /dev/shm has {total / GB:.2f} GB, where Ray keeps objects and NCCL its buffers: 1 GB or "
                    "more is better (docker's --shm-size)"
                )
        if answer["memory"]:
            free, total = answer["memory"]
            if warning := check_cpu_memory(terms, where, free, total):
                warnings.append(warning)
            texts.append(f"{node['NodeManagerAddress']} {free / GB:.0f} of {total / GB:.0f} GB free")
    return CheckWarning("; ".join(warnings)) if warnings else "; ".join(texts)


def _settled(check: Callable[[], str]) -> str:
    """A check that may fail only for a moment: Ray reports what is free with a delay."""
    end = time.monotonic() + SETTLE_S
    while True:
        try:
            return check()
        except UserError:
            if time.monotonic() > end:
                raise
        time.sleep(0.25)
