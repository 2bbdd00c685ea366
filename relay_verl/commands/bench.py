"""Benchmarks; each compares its sides in one run."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from relay_verl.commands.options import Data, Overrides, Recipe
from relay_verl.config import ConfigError, read_settings

app = typer.Typer(no_args_is_help=True, help="Benchmarks; each compares its sides in one run.")


@app.command()
def rollout(
    recipe: Annotated[str, typer.Option(help="Recipe that says how the engines run.")] = "relay_tiny",
    student: Annotated[str | None, typer.Option(help="Student; the recipe's if not given.")] = None,
    teacher: Annotated[str | None, typer.Option(help="Teacher; the recipe's if not given.")] = None,
    num_responses: Annotated[int, typer.Option(min=1, help="Responses a round.")] = 128,
    rounds: Annotated[int, typer.Option(min=1, help="Counted rounds.")] = 5,
) -> None:
    """Relay against a barrier at each turn, and against verl's single turn writing as many tokens."""
    import pandas as pd

    from relay_verl.bench.rollout import bench_rollout
    from relay_verl.cluster import compose
    from relay_verl.preflight import check_dataset
    from relay_verl.preflight.commands import check_asked_model

    config = compose(recipe)
    student = student or config.actor_rollout_ref.model.path
    if not student:
        raise ConfigError(f"--student: the recipe {recipe} names none while RELAY_STUDENT is not set; give one")
    check_asked_model("--student", student)
    teacher = teacher or read_settings(config.relay).only_teacher.path
    if teacher is None:
        raise ConfigError(f"--teacher: the recipe {recipe} names none; give one")
    check_asked_model("--teacher", teacher)
    check_dataset(config, "train_files")
    questions = pd.read_parquet(Path(config.data.train_files)).to_dict("records")
    rows = [questions[index % len(questions)] for index in range(num_responses)]
    typer.echo(bench_rollout(config, student, teacher, rows, rounds))


@app.command("eval")
def bench_eval_(
    student: Annotated[str, typer.Option(help="Student.")],
    teacher: Annotated[str, typer.Option(help="Teacher.")],
    recipe: Annotated[str, typer.Option(help="Recipe that says how the engines run.")] = "relay_tiny",
    benchmark: Annotated[str, typer.Option(help="Benchmark by name.")] = "tiny",
    source: Annotated[Path | None, typer.Option(help="Local copy of it.")] = None,
    limit: Annotated[int | None, typer.Option(min=1, help="Only its first questions.")] = None,
    rounds: Annotated[int, typer.Option(min=1, help="Counted rounds.")] = 5,
) -> None:
    """The runner against one response at a time and against lock-step batches, and how far they agree."""
    from relay_verl.bench.evaluation import bench_eval
    from relay_verl.cluster import compose
    from relay_verl.evaluation.benchmarks import find_benchmark, load_benchmark
    from relay_verl.evaluation.runner import Exam
    from relay_verl.preflight.commands import check_asked_model

    chosen = find_benchmark(benchmark)
    exam = Exam({chosen.name: (chosen, load_benchmark(chosen, source, limit=limit))})
    for option, path in (("--student", student), ("--teacher", teacher)):
        check_asked_model(option, path)
    typer.echo(bench_eval(compose(recipe), student, teacher, exam, rounds))


@app.command("filter")
def bench_filter_(
    data: Data,
    recipe: Recipe = "relay_tiny",
    rounds: Annotated[int, typer.Option(min=1, help="Counted rounds.")] = 3,
    overrides: Overrides = None,
) -> None:
    """The teacher's filter against the plainest script that does the same, and with early stopping."""
    from relay_verl.bench.filter import bench_filter
    from relay_verl.cluster import compose
    from relay_verl.data.generate import Source
    from relay_verl.preflight.commands import check_filters_models

    config = compose(recipe, overrides or ())
    check_filters_models(config)
    typer.echo(bench_filter(config, Source.scan(data), rounds))
