"""The teacher's GPUs on nodes of its own: reserved in the driver, before the trainer takes any.

`relay.teacher.node_resource` names a custom resource that only the teacher's nodes have (`ray start --resources
'{"teacher": 1}'`). Without it Ray places the replicas wherever GPUs are free. A reservation lives as long as the
driver's job.
"""

from __future__ import annotations

import asyncio
from dataclasses import dataclass
from typing import Any

from relay_verl.config import RelaySettings, TeacherSettings
from relay_verl.errors import UserError
from relay_verl.models.processes import ProcessId, end

DEADLINE_S = 30.0
"""Seconds Ray may take to find the nodes."""
WAIT_S = 5
"""Seconds of one wait for a replica's GPUs."""
CPUS_PER_GPU = 2
"""CPUs that a replica's worker group takes a GPU, as verl's `RolloutReplica.init_standalone` has it."""
SHARE = 1e-4
"""How much of the nodes' custom resource a GPU takes: next to nothing, so that 1 serves any number."""


def reserve(settings: TeacherSettings, gpus_per_node: int, *, name: str = "") -> None:
    """Reserve the GPUs of all replicas on nodes that have `node_resource`, unless they are reserved already.

    Args:
        settings: of the teacher.
        gpus_per_node: of the cluster; a replica of more GPUs than that spans nodes.
        name: the teacher's suffix, where there are several.

    Raises:
        UserError: no such nodes, or their GPUs are not free.
    """
    if settings.node_resource is None or settings.path is None:
        return
    if find_reserved(settings, 0, gpus_per_node, name=name):
        return
    import ray
    from ray.util.placement_group import placement_group
    from verl.plugin.platform.platform_manager import get_platform

    gpu = get_platform().ray_resource_name()
    bundle = {gpu: 1.0, "CPU": float(CPUS_PER_GPU), settings.node_resource: SHARE}
    groups = [
        placement_group([bundle] * num_gpus, strategy="STRICT_PACK", name=_name(name, rank, node))
        for rank in range(settings.num_replicas)
        for node, num_gpus in enumerate(gpus_by_node(settings, gpus_per_node))
    ]
    try:
        ray.get([group.ready() for group in groups], timeout=DEADLINE_S)
    except ray.exceptions.GetTimeoutError:
        total, free = ray.cluster_resources(), ray.available_resources()
        has = [node for node in ray.nodes() if node["Alive"] and node["Resources"].get(settings.node_resource)]
        there = ", ".join(f"{node['Resources'].get(gpu, 0):g} {gpu}" for node in has) or "none"
        raise UserError(
            f"relay.teacher.node_resource: {settings.node_resource!r}: {settings.num_replicas} replica(s) of "
            f"{settings.tensor_parallel_size} {gpu} do not fit on the nodes that have this resource ({there}); the "
            f"cluster has {free.get(gpu, 0):g} of {total.get(gpu, 0):g} {gpu} free. Start nodes with `ray start "
            f"--resources '{{\"{settings.node_resource}\": 1}}'`, or lower relay.teacher.num_replicas"
        ) from None


def find_reserved(settings: TeacherSettings, rank: int, gpus_per_node: int, *, name: str = "") -> list[Any]:
    """The placement groups of one replica, a node each; none if nothing is reserved."""
    if settings.node_resource is None:
        return []
    from ray.util.placement_group import get_placement_group

    nodes = range(len(gpus_by_node(settings, gpus_per_node)))
    try:
        return [get_placement_group(_name(name, rank, node)) for node in nodes]
    except ValueError:
        return []


def nodes_without_teachers(settings: RelaySettings) -> list[str] | None:
    """Ids of the nodes that are not the teachers' own, sorted; None where they have none of their own, or all nodes."""
    import ray

    resources = {teacher.node_resource for teacher in settings.active_teachers.values() if teacher.node_resource}
    alive = [node for node in ray.nodes() if node["Alive"] and node["Resources"].get("CPU")] if resources else []
    return sorted(node["NodeID"] for node in alive if not resources & node["Resources"].keys()) or None


class GpuHolder:
    """Ray actor that holds one of a replica's GPUs; the server's process computes on it.

    Takes the place of verl's worker, which also takes weights from a trainer: these replicas read theirs from files.
    """

    def place(self) -> tuple[str, str]:
        """Ids of the node and of its GPU."""
        import ray

        [ids] = [ids for ids in ray.get_runtime_context().get_accelerator_ids().values() if ids]
        return ray.get_runtime_context().get_node_id(), ids[0]

    def end(self, left: list[ProcessId]) -> None:
        """Kill what a dead server has left on this node: an engine's process outlives the one that asks it."""
        end(left)


@dataclass(frozen=True)
class HeldGpu:
    """What verl's replica takes for its worker: it asks each one where it is, and nothing else."""

    holder: Any
    """The actor, which lives as long as its handle is held."""
    node_id: str
    """Of the node that it is on."""
    gpu_id: str
    """Of the GPU on that node."""

    @property
    def __ray_call__(self) -> HeldGpu:
        return self

    async def remote(self, _: Any) -> tuple[str, str]:
        """Where the GPU is; the function that verl would have a worker run for that imports all of verl there."""
        return self.node_id, self.gpu_id


async def start_in(replica: Any, groups: list[Any]) -> None:
    """Start a replica of verl's in reserved placement groups, a node each; in new ones anywhere without any."""
    from ray.util.placement_group import placement_group
    from verl.plugin.platform.platform_manager import get_platform
    from verl.single_controller.ray.base import sort_placement_group_by_node_ip
    from verl.workers.rollout.replica import RolloutMode

    if not groups:
        bundle = {get_platform().ray_resource_name(): 1.0, "CPU": float(CPUS_PER_GPU)}
        bundles = [bundle] * replica.gpus_per_replica_node
        groups = [placement_group(bundles, strategy="STRICT_PACK") for _ in range(replica.nnodes)]
        for group in groups:
            while not await asyncio.to_thread(group.wait, WAIT_S):
                pass  # the caller has a deadline
    replica.rollout_mode = RolloutMode.STANDALONE
    replica.placement_groups = groups  # they live as long as their handles
    replica.workers = await asyncio.gather(
        *(
            _hold(group, index)
            for group in sort_placement_group_by_node_ip(groups)
            for index in range(group.bundle_count)
        )
    )
    await replica.launch_servers()


async def _hold(group: Any, index: int) -> HeldGpu:
    import ray
    from ray.util.scheduling_strategies import PlacementGroupSchedulingStrategy
    from verl.plugin.platform.platform_manager import get_platform

    where = PlacementGroupSchedulingStrategy(group, placement_group_bundle_index=index)
    options = get_platform().ray_resource_options(1)
    holder = ray.remote(GpuHolder).options(num_cpus=1, scheduling_strategy=where, **options).remote()
    return HeldGpu(holder, *await holder.place.remote())


def gpus_by_node(settings: TeacherSettings, gpus_per_node: int) -> list[int]:
    """GPUs of one replica on each of its nodes.

    >>> gpus_by_node(TeacherSettings(tensor_parallel_size=8), 4)
    [4, 4]
    """
    here = min(settings.tensor_parallel_size, gpus_per_node)
    return [here] * (settings.tensor_parallel_size // here)


def _name(teacher: str, rank: int, node: int) -> str:
    return f"relay_teacher{teacher}_{rank}_{node}"
