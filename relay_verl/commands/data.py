"""What comes before training: datasets, the warm-up's data, the filter."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from relay_verl.commands.options import Data, Overrides, Recipe, Workers
from relay_verl.config import ConfigError

app = typer.Typer()


@app.command()
def data(
    name: Annotated[str, typer.Argument(help="Training dataset or benchmark, such as dapo-math-17k or math-500.")],
    out: Annotated[Path, typer.Option(help="Parquet file to write; the rows left out are named beside it.")],
    source: Annotated[
        str | None, typer.Option(help="Local copy, a file or a folder, or hub:OWNER/NAME; the hub's own if not given.")
    ] = None,
    evaluation: Annotated[
        list[Path] | None, typer.Option(help="Evaluation set whose questions must not be trained on; repeatable.")
    ] = None,
    ngram: Annotated[int, typer.Option(min=1, help="Words in a run that two questions may share.")] = 13,
    min_share: Annotated[
        float, typer.Option(min=0, max=1, help="Share of the shorter question's runs that makes an overlap.")
    ] = 0.5,
) -> None:
    """Write a dataset in verl's schema: a training set, without repetitions and without questions of evaluation sets,
    or a benchmark, with all of its questions."""
    from relay_verl.data.golds import warn_of_unreadable
    from relay_verl.data.prepare import prepare
    from relay_verl.data.schema import iter_rows
    from relay_verl.data.sources import SOURCES, parse_source
    from relay_verl.evaluation.benchmark_file import write_benchmark
    from relay_verl.evaluation.benchmarks import BENCHMARKS
    from relay_verl.grading import Grader

    copy = None if source is None else parse_source(source)
    with Grader() as grader:
        if name.lower() in SOURCES:
            report = prepare(name, out, source=copy, evaluation=evaluation or (), ngram=ngram, min_share=min_share)
            typer.echo(report.summary())
            if unreadable := warn_of_unreadable(out, iter_rows(out), grader.is_readable):
                typer.echo(unreadable, err=True)
        elif name.lower() in BENCHMARKS:
            if evaluation:
                raise ConfigError(f"--evaluation: {name} is a benchmark, of which no question is left out")
            typer.echo(write_benchmark(BENCHMARKS[name.lower()], out, copy, is_readable=grader.is_readable))
        else:
            known = ", ".join((*SOURCES, *BENCHMARKS))
            raise ConfigError(f"there is no dataset {name!r}; allowed: {known}")


@app.command("warmup-data")
def warmup_data(
    student: Annotated[str, typer.Option(help="The student before any training.")],
    data: Data,
    out: Annotated[Path, typer.Option(help="Parquet file to write; a report and a picture stand beside it.")],
    recipe: Recipe = "relay_1.7b",
    num_workers: Workers = None,
    overrides: Overrides = None,
) -> None:
    """Sample the student's own responses and put commands into them: the data of the call warm-up."""
    from relay_verl.cluster import compose
    from relay_verl.data.generate import Source, generate, plan_warmup_data
    from relay_verl.data.report import report_warmup
    from relay_verl.preflight.commands import check_asked_model, check_students_tokenizer

    config = compose(recipe, overrides or ())
    check_asked_model("--student", student)
    check_students_tokenizer(config)
    source = Source.scan(data)
    generate(config, plan_warmup_data(config, source, student), source, out, num_workers=num_workers)
    typer.echo(report_warmup(out, config))


@app.command("filter")
def filter_(
    data: Data,
    out: Annotated[Path, typer.Option(help="Parquet file to write; a picture stands beside it.")],
    recipe: Recipe = "relay_1.7b",
    early_stop: Annotated[
        bool, typer.Option("--early-stop", help="Sample no further where the verdict at the threshold is certain.")
    ] = False,
    num_workers: Workers = None,
    overrides: Overrides = None,
) -> None:
    """Ask the teacher each query several times and keep its pass rate: what the paper's filter reads."""
    from relay_verl.cluster import compose
    from relay_verl.data.generate import Source, generate, plan_filter
    from relay_verl.data.golds import warn_of_unreadable
    from relay_verl.data.report import report_filter
    from relay_verl.data.schema import iter_rows
    from relay_verl.grading import Grader
    from relay_verl.preflight.commands import check_filters_models

    config = compose(recipe, overrides or ())
    check_filters_models(config)
    source = Source.scan(data)
    with Grader() as grader:
        if unreadable := warn_of_unreadable(data, iter_rows(data), grader.is_readable):
            typer.echo(unreadable, err=True)
    generate(config, plan_filter(config, source, stop_early=early_stop), source, out, num_workers=num_workers)
    typer.echo(report_filter(out, config))
