"""Whether the trainer, the teacher and verl's actors find room on the nodes of a Ray cluster.

verl reserves GPUs in groups that lie on one node each, with CPUs beside them, and waits in silence where Ray cannot
place one. The arithmetic here is that of verl 0.9.1's V1 trainer; the order and the choice of a node are Ray's.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

from relay_verl.config import TeacherSettings
from relay_verl.errors import UserError
from relay_verl.models.reservation import CPUS_PER_GPU, gpus_by_node
from relay_verl.run_config import RunConfig, TrainerSettings, VerlConfig

TRAINER_CPUS = 3
"""CPUs that verl reserves beside a GPU of the trainer: `ResourcePoolManager.max_colocate_count`."""
CONTROLLER_CPUS = 1
"""CPUs of TransferQueue's controller."""
SPARE_CPUS = 1
"""CPUs that must be free on a node for an actor to start there, which then holds none: vLLM's server, verl's loops."""


@dataclass(frozen=True)
class Node:
    """What is free on a node."""

    node_id: str
    """Ray's hexadecimal id."""
    address: str
    """IP address."""
    num_gpus: float
    """GPUs that nobody holds."""
    num_cpus: float
    """CPUs that nobody holds."""
    resources: frozenset[str] = frozenset()
    """Names of all that it has."""

    def __str__(self) -> str:
        return f"{self.address} {self.num_gpus:g} GPU {self.num_cpus:g} CPU"


@dataclass(frozen=True)
class Group:
    """What must lie on one node together."""

    owner: str
    """Whose it is."""
    num_gpus: int
    """GPUs."""
    num_cpus: int
    """CPUs."""
    resource: str | None = None
    """What the node must have."""


def trainer_groups(trainer: TrainerSettings) -> list[Group]:
    """One group for each of `trainer.nnodes`; two may share a node that is large enough."""
    num_gpus = trainer.gpus_per_node
    return [Group("the trainer", num_gpus, num_gpus * TRAINER_CPUS)] * trainer.num_nodes


def replica_groups(teacher: TeacherSettings, gpus_per_node: int) -> list[Group]:
    """The groups of a model's replicas: as many of its GPUs on one node as the trainer has on one of its own."""
    return [
        Group("the teacher", num_gpus, num_gpus * CPUS_PER_GPU, teacher.node_resource)
        for num_gpus in gpus_by_node(teacher, gpus_per_node) * teacher.num_replicas
    ]


def check_room(run: RunConfig, nodes: Sequence[Node]) -> str:
    """Place everything, in verl's order, on what is free.

    Raises:
        UserError: what does not fit, what is free on each node, and what would mend it.
    """
    groups = trainer_groups(run.trainer)
    settings = run.relay
    for teacher in settings.active_teachers.values() if settings.needs_teacher else ():
        if teacher.path is not None:
            groups += replica_groups(teacher, run.trainer.gpus_per_node)
    groups.sort(key=lambda group: group.resource is None)  # nodes of its own are reserved before the trainer's
    units, place = _storage_units(run.verl)
    there = "; ".join(str(node) for node in nodes)
    wanted = (
        f"{_describe(groups)}; {units + CONTROLLER_CPUS} CPU for TransferQueue, spread over all nodes; {SPARE_CPUS} "
        "CPU to spare on each node"
    )
    without_cpus = [replace(node, num_cpus=float("inf")) for node in nodes]
    if (left_out := _place(groups, without_cpus)) is not None:
        missing = sum(group.num_gpus for group in groups) - sum(node.num_gpus for node in nodes)
        mend = f"add {missing:g}" if missing > 0 else "use nodes with more GPUs each"
        if left_out.resource is not None:
            mend = f"start nodes with `ray start --resources '{{\"{left_out.resource}\": 1}}'`"
        raise UserError(
            f"GPUs: {left_out.owner} finds no node with {left_out.num_gpus} GPU free"
            + (f" and the resource {left_out.resource!r}" if left_out.resource else "")
            + f"; there are {there}; needed: {_describe(groups)}; {mend}, or lower trainer.nnodes, "
            "trainer.n_gpus_per_node, relay.teacher.num_replicas or relay.teacher.tensor_parallel_size"
        )
    if not _has_cpus(groups, nodes, units, place):
        raise UserError(
            f"CPUs: verl would wait for ever; there are {there}; needed: {wanted}; give Ray more (`ray start "
            "--num-cpus` on each node, or ray_kwargs.ray_init.num_cpus where training starts Ray: the number is "
            "only Ray's bookkeeping), or lower transfer_queue.backend.SimpleStorage.num_data_storage_units"
        )
    return f"{there}; needed: {wanted}"


def _storage_units(config: VerlConfig) -> tuple[int, str | None]:
    """How many, and the resource that their nodes must have."""
    backend = config.transfer_queue.backend
    if backend.storage_backend != "SimpleStorage":
        return 0, None
    return backend.SimpleStorage.num_data_storage_units, backend.SimpleStorage.get("required_node_resource")


def _has_cpus(groups: Sequence[Group], nodes: Sequence[Node], units: int, place: str | None) -> bool:
    """Whether TransferQueue's units, one after the other on each of their nodes by id, and then the groups fit."""
    holders = sorted(node.node_id for node in nodes if place is None or place in node.resources)
    if units and not holders:
        return False
    share = {node_id: len(range(index, units, len(holders))) for index, node_id in enumerate(holders)}
    shares = [share.get(node.node_id, 0) for node in nodes]
    left = [replace(node, num_cpus=node.num_cpus - share) for node, share in zip(nodes, shares, strict=True)]
    if any(node.num_cpus < 0 for node in left):
        return False
    roomiest = max(range(len(left)), key=lambda index: left[index].num_cpus)
    left[roomiest] = replace(left[roomiest], num_cpus=left[roomiest].num_cpus - CONTROLLER_CPUS)
    return _place(groups, left) is None


def _place(groups: Sequence[Group], nodes: Sequence[Node]) -> Group | None:
    """The first group that finds no node; each goes where it leaves the fewest GPUs."""
    left = list(nodes)
    for group in groups:
        fits = [
            index
            for index, node in enumerate(left)
            if node.num_gpus >= group.num_gpus
            and node.num_cpus >= group.num_cpus + SPARE_CPUS
            and (group.resource is None or group.resource in node.resources)
        ]
        if not fits:
            return group
        best = min(fits, key=lambda index: left[index].num_gpus)
        node = left[best]
        left[best] = replace(node, num_gpus=node.num_gpus - group.num_gpus, num_cpus=node.num_cpus - group.num_cpus)
    return None


def _describe(groups: Sequence[Group]) -> str:
    """'the trainer 2 x (4 GPU 12 CPU on one node), ...'."""
    kinds = dict.fromkeys(groups)
    return ", ".join(
        f"{kind.owner} {groups.count(kind)} x ({kind.num_gpus} GPU {kind.num_cpus} CPU on one node)" for kind in kinds
    )
