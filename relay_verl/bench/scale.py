"""A simulation of relayed rollouts on any number of replicas, from measured curves of the engines; nothing is run.

An event is the end of a turn. Between events the sequences of a replica share it: each of k decodes at rate(k) / k, so
when one joins or leaves, all others change their speed. A replica's virtual time is the number of tokens that a
sequence which is always there would have: one that joins at v to write n tokens ends at v + n, whoever else joins or
leaves. So a heap of virtual ends is exact, and an event costs O(log k). A request is its prefill, during which the
replica decodes nothing, and then its tokens. Of a later request's prompt the prefix cache has `cached_share` if the
trajectory asked the same replica the last time.

Two ways of the same work:

- ours: each trajectory continues by itself.
- barrier: all wait for all at each turn, as the authors' release does.

Routing is `ReplicaClient`'s, with one shortcut. That client sorts all replicas by a hash of the trajectory and each of
them, which takes minutes for 1,024 replicas and 10^5 trajectories. Here replicas are drawn by the same hash of the
trajectory and the number of the try. Either way a trajectory tries the replicas in a uniformly random order of its own,
the same one at each of its requests, and takes the first one that has room.

Left out: the network, processes on CPU, memory that runs out, and the update of the weights. Speeds are upper bounds of
what a cluster does; compare them with each other. Invariants: each trajectory ends once; the same input gives the same
outcome. Pure.
"""

from __future__ import annotations

import heapq
import itertools
from collections.abc import Sequence
from dataclasses import dataclass

from relay_verl.bench.scenario import EngineCurve, Scenario, Trajectory
from relay_verl.errors import UserError
from relay_verl.models.replica_client import rendezvous_hash, room_of


@dataclass(frozen=True)
class FleetUse:
    """What all replicas of a model did."""

    num_replicas: int
    """How many there are."""
    num_tokens: float
    """Tokens they decoded: their rate, summed over time."""
    prefill_s: float
    """Seconds of prefill, of all replicas together."""
    busy_s: float
    """Seconds with at least one request, of all replicas together."""


@dataclass(frozen=True)
class Outcome:
    """A simulated batch."""

    ended_at: tuple[float, ...]
    """Seconds from the start to the end of each trajectory, [num_trajectories]."""
    num_tokens: int
    """Tokens of all responses."""
    student: FleetUse
    """The student's replicas."""
    teacher: FleetUse
    """The teacher's replicas."""

    @property
    def seconds(self) -> float:
        """Until the last trajectory ends."""
        return max(self.ended_at)


def simulate(
    scenario: Scenario,
    trajectories: Sequence[Trajectory],
    num_students: int,
    num_teachers: int,
    *,
    has_barrier: bool = False,
) -> Outcome:
    """Write a batch.

    Args:
        scenario: the engines' curves, and who routes.
        trajectories: what `Workload.draw` gives; all start at once.
        num_students: the student's replicas.
        num_teachers: the teacher's replicas.
        has_barrier: all wait for all at each turn.

    Raises:
        UserError: no replicas or no trajectories.
    """
    counts = {"student replicas": num_students, "teacher replicas": num_teachers, "trajectories": len(trajectories)}
    for name, count in counts.items():
        if count < 1:
            raise UserError(f"{name}: {count}; expected at least 1")
    num_workers, most = scenario.workload.num_workers, len(trajectories)
    students = _Fleet(scenario.student, num_students, num_workers, most)
    teachers = _Fleet(scenario.teacher, num_teachers, num_workers, most)
    num_turns = [0] * len(trajectories)  # that have ended
    contexts = [scenario.workload.prompt_tokens] * len(trajectories)
    ended_at = [0.0] * len(trajectories)
    events: list[tuple[float, int, _Replica]] = []
    serials = itertools.count()

    def plan(replica: _Replica) -> None:
        """Announce the replica's next end; one that was announced before is void."""
        if replica.ends:
            replica.next_event = next(serials)
            heapq.heappush(events, (replica.ends_at(), replica.next_event, replica))

    def start_turn(index: int, now: float) -> _Replica:
        turn, trajectory = num_turns[index], trajectories[index]
        fleet = teachers if turn % 2 else students
        return fleet.start(now, index, trajectory.name, contexts[index], trajectory.turns[turn])

    waiting: list[int] = list(range(len(trajectories)))
    num_running = 0
    now = 0.0
    while waiting or events:
        # Ours never waits. The barrier opens once the last trajectory's turn has ended.
        if not has_barrier or num_running == 0:
            for replica in dict.fromkeys([start_turn(index, now) for index in waiting]):  # each once, in order
                plan(replica)
            num_running += len(waiting)
            waiting.clear()
        now, serial, replica = heapq.heappop(events)
        if serial != replica.next_event:
            continue
        index = replica.end(now)
        plan(replica)
        turns, turn = trajectories[index].turns, num_turns[index]
        (teachers if turn % 2 else students).leave(index, replica)
        num_running -= 1
        contexts[index] += turns[turn]
        num_turns[index] += 1
        if num_turns[index] < len(turns):
            waiting.append(index)
        else:
            ended_at[index] = now
    num_tokens = sum(sum(trajectory.turns) for trajectory in trajectories)
    return Outcome(tuple(ended_at), num_tokens, students.use(), teachers.use())


class _Replica:
    """An engine whose sequences share it.

    Args:
        number: its place among the replicas of the model.
        rates: tokens a second by running sequences.
    """

    def __init__(self, number: int, rates: Sequence[float]):
        self.number = number
        self.ends: list[tuple[float, int]] = []
        """Virtual time at which each running sequence ends, and its trajectory: a heap."""
        self.next_event = -1
        self.num_tokens = self.prefill_s = self.busy_s = 0.0
        self._rates = rates
        self._virtual = self._now = self._prefill_left_s = 0.0

    def join(self, now: float, index: int, prefill_s: float, num_tokens: int) -> None:
        self._advance(now)
        heapq.heappush(self.ends, (self._virtual + num_tokens, index))
        self._prefill_left_s += prefill_s
        self.prefill_s += prefill_s

    def ends_at(self) -> float:
        """When the next sequence ends if none joins before."""
        num_tokens = max(0.0, self.ends[0][0] - self._virtual)  # rounded below 0 if it ends right now
        return self._now + self._prefill_left_s + num_tokens * len(self.ends) / self._rates[len(self.ends)]

    def end(self, now: float) -> int:
        """Take out the sequence that ends now."""
        self._advance(now)
        self._virtual, index = heapq.heappop(self.ends)
        return index

    def _advance(self, now: float) -> None:
        elapsed, self._now = now - self._now, now
        if not self.ends:
            return
        self.busy_s += elapsed
        stalled = min(elapsed, self._prefill_left_s)
        self._prefill_left_s -= stalled
        num_tokens = (elapsed - stalled) * self._rates[len(self.ends)]
        self.num_tokens += num_tokens
        self._virtual += num_tokens / len(self.ends)


class _Fleet:
    """All replicas of a model, and who goes where.

    Args:
        curve: of each replica.
        num_replicas: how many there are.
        num_workers: processes that route, each by what it has under way itself.
        most: sequences that may run at once.
    """

    def __init__(self, curve: EngineCurve, num_replicas: int, num_workers: int, most: int):
        rates = curve.rates(most)
        self.replicas = [_Replica(number, rates) for number in range(num_replicas)]
        self._curve = curve
        self._last: dict[int, _Replica] = {}  # the replica that each trajectory asked last
        self._running = [[0] * num_replicas for _ in range(num_workers)]
        self._num_running = [0] * num_workers

    def start(self, now: float, index: int, name: str, num_context: int, num_tokens: int) -> _Replica:
        """Send a request to a replica that has room, and say which one that is."""
        worker = index % len(self._running)
        running = self._running[worker]
        room = room_of(self._num_running[worker], len(running))
        number = 0
        while running[place := self._draw(name, number)] >= room:
            number += 1
        replica = self.replicas[place]
        running[place] += 1
        self._num_running[worker] += 1
        cached_share = self._curve.cached_share if self._last.get(index) is replica else 0.0
        self._last[index] = replica
        replica.join(now, index, (1 - cached_share) * num_context * self._curve.prefill_s_per_token, num_tokens)
        return replica

    def leave(self, index: int, replica: _Replica) -> None:
        """A request has its answer."""
        worker = index % len(self._running)
        self._running[worker][replica.number] -= 1
        self._num_running[worker] -= 1

    def _draw(self, name: str, number: int) -> int:
        return int.from_bytes(rendezvous_hash(name, str(number))) % len(self.replicas)

    def use(self) -> FleetUse:
        """What the replicas did."""
        sums = {
            key: sum(getattr(replica, key) for replica in self.replicas)
            for key in ("num_tokens", "prefill_s", "busy_s")
        }
        return FleetUse(len(self.replicas), **sums)
