"""One recipe in full: description, the paper's numbers, command, estimate with its arithmetic, and what it changes."""

from __future__ import annotations

from collections.abc import Sequence

from relay_verl.recipes.composed import Difference
from relay_verl.recipes.estimate import GpuEstimate, estimate
from relay_verl.recipes.memory import GIB, GPUS, Engine, Term
from relay_verl.recipes.paper import paper
from relay_verl.recipes.recipe import Recipe, is_warm_up
from relay_verl.run_config import RunConfig


def describe(recipe: Recipe, run: RunConfig) -> str:
    """What the recipe is, what it is about, the paper's numbers, and how it is run.

    Args:
        recipe: the recipe.
        run: composed over verl's defaults.
    """
    lines = [recipe.name, recipe.description]
    if recipe.parent is not None:
        lines.append(f"variant of {recipe.parent}, about {', '.join(recipe.keys)}")
    if (row := recipe.row) is not None:
        lines.append(f"row: {row.name}: {row.size_title}, {row.title}")
        titles = {name: benchmark.title for name, benchmark in paper().benchmarks.items()}
        for entry in paper().entries:
            if entry.row == row.name:
                values = (
                    f"{titles.get(name, name.replace('_', ' '))} {value:g}" for name, value in entry.values.items()
                )
                note = f" ({entry.policy or entry.teacher})" if entry.policy or entry.teacher else ""
                lines.append(f"paper, {entry.table}{note}: {', '.join(values)}")
    return "\n".join([*lines, f"command: {command_of(recipe, run)}"])


def command_of(recipe: Recipe, run: RunConfig) -> str:
    """What runs it: of a head, the names of the commands."""
    platform = "VERL_PLATFORM=cpu " if run.trainer.is_cpu else ""
    if is_warm_up(recipe):
        start = f"torchrun --standalone --nproc_per_node={run.trainer.gpus_per_node}"
        return f"{platform}{start} -m verl.trainer.sft_trainer +recipe={recipe.name}"
    if run.relay.defer_training.kind is not None:
        commands = "defer-data, then defer-train and calibrate,"
        return f"{platform}relay-verl {commands} each with --recipe {recipe.name} (relay_verl/defer_training/README.md)"
    return f"{platform}python -m verl.trainer.main_ppo +recipe={recipe.name}"


def explain_recipe(run: RunConfig) -> str:
    """The estimate on each size of GPU, term by term, in GiB."""
    sized = {name: estimate(run, gib) for name, gib in GPUS.items()}
    first = next(iter(sized.values()))
    trainer = f"{first.trainer} {first.num_trainer_gpus}, teacher {first.num_teacher_gpus}"
    if first.is_cpu:
        return f"GPUs: none; it trains on CPU (to Ray, logical GPUs: {trainer})"
    lines = [f"GPUs: {trainer}"]
    for name in first.unknown:
        lines.append(f"{name}: unknown shape; its part is not counted (a folder with a config.json would tell)")
    if not first.phases and first.teacher is None:
        return "\n".join(lines)
    lines.append("Memory of a GPU, an estimate, in GiB:")
    for name, memory in sized.items():
        verdict = "unknown" if memory.unknown else "fits" if memory.fits else "does not fit"
        lines.append(f"a GPU of {name} ({memory.gpu_gib:g} for programs): {verdict}")
        lines += _details(memory)
    if first.host is not None:
        lines.append("next to it, in host memory:")
        lines.append(_line(first.host))
    return "\n".join(lines)


def _details(estimate: GpuEstimate) -> list[str]:
    lines = []
    for phase in estimate.phases:
        lines.append(f"  a {estimate.trainer}'s GPU {phase.name}: {phase.gib:.1f}")
        lines += [_line(term) for term in phase.terms]
    for who, engine in (("the student's vLLM", estimate.student), ("a teacher's GPU", estimate.teacher)):
        if engine is not None:
            lines.append(f"  {who}: {engine.share.num_bytes / GIB:.1f}, of which {_cache(engine)}")
            lines += [_line(term) for term in (engine.share, engine.weights, engine.workspace)]
    return lines


def _cache(engine: Engine) -> str:
    room = f"{engine.cache_gib:.1f} for the KV cache: {engine.num_tokens:,} tokens of {engine.token_bytes / 1024:g} KiB"
    return room if engine.fits else f"{room}, less than one sequence of {engine.max_model_len:,}"


def _line(term: Term) -> str:
    return f"    {term.num_bytes / GIB:6.1f}  {term.name}: {term.arithmetic}"


def list_differences(differences: Sequence[Difference], against: str) -> str:
    """The keys that differ, one a line; `+` is new and `-` gone."""
    return "\n".join([f"Against {against}, {len(differences)} keys:", *map(str, differences)])
