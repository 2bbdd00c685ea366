"""All recipes as one table: what each is, the paper's numbers for it, its models, and what they take."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from pathlib import PurePath
from typing import Any

from rich.table import Table

from relay_verl.recipes.estimate import GpuEstimate, estimate
from relay_verl.recipes.memory import GPUS
from relay_verl.recipes.paper import paper
from relay_verl.recipes.recipe import Recipe, is_warm_up
from relay_verl.run_config import RunConfig

TINY, WARM_UP, DISTILLATION, OTHER_TEACHERS, RELEASE, OTHERS = (
    "The tiny world, on CPU",
    "3.1, the call warm-up",
    "Distillation",
    "Other teachers in training",
    "As the released code",
    "Others",
)
COLUMNS = ("recipe", "what it is", "accuracy", "calls", "student", "teacher", "GPUs", "GiB", "fits")


def listing(recipes: Iterable[Recipe], runs: Mapping[str, RunConfig]) -> Table:
    """The table; its groups in the order of the paper.

    Args:
        recipes: those to list.
        runs: the composed configs by name.
    """
    groups: dict[str, list[Recipe]] = {}
    for recipe in sorted(recipes, key=_order):
        groups.setdefault(group_of(recipe, runs[recipe.name]), []).append(recipe)
    own = [size.heading for size in paper().students(is_in_paper=False)]
    rest = [WARM_UP, DISTILLATION, OTHER_TEACHERS, RELEASE, OTHERS, *own, TINY]
    table = Table(box=None, pad_edge=False, padding=(0, 1, 0, 0), header_style="bold")
    for column in COLUMNS:
        is_number = column in ("accuracy", "calls", "GPUs", "GiB")
        no_wrap = column not in ("what it is", "student")
        table.add_column(column, justify="right" if is_number else "left", no_wrap=no_wrap, overflow="fold")
    for group in [*sorted(groups.keys() - set(rest)), *(name for name in rest if name in groups)]:
        if table.row_count:
            table.add_row()
        table.add_row(f"[bold]{group}[/bold]")
        for recipe in groups[group]:
            table.add_row(*cells_of(recipe, runs[recipe.name]))
    return table


def rows_of(recipes: Iterable[Recipe], runs: Mapping[str, RunConfig]) -> list[dict[str, Any]]:
    """The table for programs: a row a recipe, in the order of the paper, with numbers where the table has text."""
    rows = []
    for recipe in sorted(recipes, key=_order):
        run = runs[recipe.name]
        largest = estimate(run, GPUS["80 GB"])
        values = paper_numbers(recipe)
        is_known = not largest.is_cpu and not largest.unknown
        rows.append(
            {
                "name": recipe.name,
                "description": recipe.description,
                "group": group_of(recipe, run),
                "row": recipe.row.name if recipe.row else None,
                "paper_accuracy_percent": values.get("average"),
                "paper_call_ratio_percent": values.get("call_ratio"),
                "student": run.student,
                "teacher": run.relay.teacher.path if largest.num_teacher_gpus else None,
                "is_cpu": largest.is_cpu,
                "num_trainer_gpus": largest.num_trainer_gpus,
                "num_teacher_gpus": largest.num_teacher_gpus,
                "trainer_gib": round(largest.peak_gib, 1) if is_known else None,
                "teacher_gib": round(largest.teacher.share.num_bytes / 2**30, 1) if largest.teacher else None,
            }
        )
    return rows


def group_of(recipe: Recipe, run: RunConfig) -> str:
    """The heading that a recipe stands under."""
    if run.trainer.is_cpu:
        return TINY
    if is_warm_up(recipe):
        return WARM_UP
    if recipe.row and not paper().sizes[recipe.row.size].is_in_paper:
        return paper().sizes[recipe.row.size].heading
    if recipe.table is not None:
        return recipe.table
    if run.distillation is not None:
        return DISTILLATION
    if "relay.teacher.path" in recipe.keys:
        return OTHER_TEACHERS
    return RELEASE if "released code" in recipe.description else OTHERS


def cells_of(recipe: Recipe, run: RunConfig) -> tuple[str, ...]:
    """A row of the table."""
    sized = {name: estimate(run, gib) for name, gib in GPUS.items()}
    largest = sized["80 GB"]
    values = paper_numbers(recipe)
    return (
        recipe.name,
        title_of(recipe),
        _number(values.get("average")),
        _number(values.get("call_ratio")),
        short_name(run.student),
        short_name(run.relay.teacher.path) if largest.num_teacher_gpus else "-",
        "CPU" if largest.is_cpu else _plus(largest.num_trainer_gpus, largest.num_teacher_gpus),
        memory_of(largest),
        fits_of(sized),
    )


def title_of(recipe: Recipe) -> str:
    """The row's title where the recipe has one, else its description."""
    row = recipe.row
    return recipe.description.rstrip(".") if row is None else row.title


def paper_numbers(recipe: Recipe) -> Mapping[str, float]:
    """The paper's numbers of its row in the row's first table; empty if it has none."""
    return paper().find(recipe.table, recipe.row.name) if recipe.row and recipe.table else {}


def memory_of(estimate: GpuEstimate) -> str:
    """GiB of a trainer's GPU, and of a teacher's."""
    if estimate.is_cpu:
        return "-"
    if estimate.unknown:
        return "unknown"
    share = estimate.teacher.share.num_bytes / 2**30 if estimate.teacher else 0
    return _plus(round(estimate.peak_gib), round(share))


def fits_of(sized: Mapping[str, GpuEstimate]) -> str:
    """The smallest GPU that holds it."""
    if any(estimate.is_cpu for estimate in sized.values()):
        return "-"
    if any(estimate.unknown for estimate in sized.values()):
        return "unknown"
    return next((name for name in sorted(sized, key=lambda name: sized[name].gpu_gib) if sized[name].fits), "neither")


def short_name(path: str | None) -> str:
    """A model's name without its folder or owner, and a Qwen3's by its size."""
    return PurePath(path).name.removeprefix("Qwen3-") if path else "-"


def _order(recipe: Recipe) -> tuple[int, list[tuple[float, str]]]:
    """By the paper's rows, then by name with its numbers as numbers."""
    names = list(paper().rows)
    pieces = re.findall(r"([\d.]+)|([^\d.]+)", recipe.name)
    return (
        names.index(recipe.row.name) if recipe.row else len(names),
        [(float(number or 0), text) for number, text in pieces],
    )


def _plus(one: int, other: int) -> str:
    return f"{one}+{other}" if other else str(one)


def _number(value: float | None) -> str:
    return "-" if value is None else f"{value:.2f}"
