"""Whether the trainer and the teacher find GPUs on the nodes of a Ray cluster.

verl reserves GPUs in groups that lie on one node each, and waits in silence where Ray cannot place one. The order and
the choice of a node are Ray's.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

from relay_verl.config import TeacherSettings
from relay_verl.errors import UserError
from relay_verl.models.reservation import gpus_by_node
from relay_verl.run_config import RunConfig, TrainerSettings


@dataclass(frozen=True)
class FreeNode:
    """What is free on a node."""

    node_id: str
    """Ray's hexadecimal id."""
    address: str
    """IP address."""
    num_gpus: float
    """GPUs that no one holds."""
    resources: frozenset[str] = frozenset()
    """Names of all that it has."""

    def __str__(self) -> str:
        return f"{self.address} {self.num_gpus:g} GPU"


@dataclass(frozen=True)
class GpuGroup:
    """What must lie on one node together."""

    owner: str
    """Whose it is."""
    num_gpus: int
    """GPUs."""
    resource: str | None = None
    """What the node must have."""


def trainer_groups(trainer: TrainerSettings) -> list[GpuGroup]:
    """One group for each of `trainer.nnodes`; two may share a node that is large enough."""
    return [GpuGroup("the trainer", trainer.gpus_per_node)] * trainer.num_nodes


def replica_groups(teacher: TeacherSettings, gpus_per_node: int) -> list[GpuGroup]:
    """The groups of a model's replicas: as many of its GPUs on one node as the trainer has on one of its own."""
    return [
        GpuGroup("the teacher", num_gpus, teacher.node_resource)
        for num_gpus in gpus_by_node(teacher, gpus_per_node) * teacher.num_replicas
    ]


def check_room(run: RunConfig, nodes: Sequence[FreeNode]) -> str:
    """Place everything, in verl's order, on what is free.

    Raises:
        UserError: what does not fit, what is free on each node, and what would fix it.
    """
    groups = trainer_groups(run.trainer)
    for teacher in run.teachers.values():
        if teacher.path is not None:
            groups += replica_groups(teacher, run.trainer.gpus_per_node)
    groups.sort(key=lambda group: group.resource is None)  # nodes of its own are reserved before the trainer's
    there = "; ".join(str(node) for node in nodes)
    if (left_out := _place(groups, nodes)) is not None:
        missing = sum(group.num_gpus for group in groups) - sum(node.num_gpus for node in nodes)
        fix = f"add {missing:g}" if missing > 0 else "use nodes with more GPUs each"
        if left_out.resource is not None:
            fix = f"start nodes with `ray start --resources '{{\"{left_out.resource}\": 1}}'`"
        raise UserError(
            f"GPUs: {left_out.owner} finds no node with {left_out.num_gpus} GPU free"
            + (f" and the resource {left_out.resource!r}" if left_out.resource else "")
            + f"; there are {there}; needed: {_describe(groups)}; {fix}, or lower trainer.nnodes, "
            "trainer.n_gpus_per_node, relay.teacher.num_replicas or relay.teacher.tensor_parallel_size"
        )
    return f"{there}; needed: {_describe(groups)}"


def _place(groups: Sequence[GpuGroup], nodes: Sequence[FreeNode]) -> GpuGroup | None:
    """The first group that finds no node; each goes where it leaves the fewest GPUs."""
    left = list(nodes)
    for group in groups:
        fits = [
            index
            for index, node in enumerate(left)
            if node.num_gpus >= group.num_gpus and (group.resource is None or group.resource in node.resources)
        ]
        if not fits:
            return group
        best = min(fits, key=lambda index: left[index].num_gpus)
        left[best] = replace(left[best], num_gpus=left[best].num_gpus - group.num_gpus)
    return None


def _describe(groups: Sequence[GpuGroup]) -> str:
    """'the trainer 2 x (4 GPU on one node), ...'."""
    kinds = dict.fromkeys(groups)
    return ", ".join(f"{kind.owner} {groups.count(kind)} x ({kind.num_gpus} GPU on one node)" for kind in kinds)
