"""What comes before training: datasets, the warm-up's data, the filter."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from relay_verl.cli.options import (
    DATA,
    AnswerColumn,
    ConfigDir,
    Data,
    Json,
    Overrides,
    QuestionColumn,
    Recipe,
    Workers,
    compose_recipe,
    user_path,
)
from relay_verl.cli.output import print_json, results_only
from relay_verl.errors import UserError, suggest
from relay_verl.jobs.byproducts import by_product

if TYPE_CHECKING:
    from relay_verl.data.generate import Plan
    from relay_verl.data.source import Source

app = typer.Typer()


@app.command(rich_help_panel=DATA)
def data(
    name: Annotated[
        str,
        typer.Argument(
            help="Training dataset or benchmark, such as dapo-math-17k or math-500; or a file of your own with a "
            "question and an answer in each row: CSV, JSON, JSON Lines, parquet, or hub:OWNER/NAME."
        ),
    ],
    out: Annotated[
        Path, typer.Option(parser=user_path, help="Parquet file to write; the rows left out are named next to it.")
    ],
    question_column: QuestionColumn = None,
    answer_column: AnswerColumn = None,
    own_name: Annotated[
        str | None, typer.Option("--name", help="What to call a dataset of your own; the file's name if not given.")
    ] = None,
    source: Annotated[
        str | None, typer.Option(help="Local copy, a file or a folder, or hub:OWNER/NAME; the hub's own if not given.")
    ] = None,
    evaluation: Annotated[
        list[Path] | None,
        typer.Option(parser=user_path, help="Evaluation set whose questions must not be trained on; repeatable."),
    ] = None,
    ngram: Annotated[
        int, typer.Option(min=1, help="Two questions overlap where they share runs of so many words.")
    ] = 13,
    min_share: Annotated[
        float, typer.Option(min=0, max=1, help="Share of the shorter question's runs that makes an overlap.")
    ] = 0.5,
    as_json: Json = False,
) -> None:
    """Write questions in the form that training reads: a training set, without repetitions and without questions of
    evaluation sets, or a benchmark, with all of its questions.

    A file of your own is a training set:  relay-verl data sums.csv --question-column sum --answer-column result --out
    sums.parquet
    """
    from relay_verl.benchmarks.file import write_benchmark
    from relay_verl.benchmarks.own import is_named
    from relay_verl.benchmarks.registry import REGISTRY, find_benchmark
    from relay_verl.data.golds import warn_of_unreadable
    from relay_verl.data.own import OwnColumns, find_own, own_source
    from relay_verl.data.own import own_name as name_of_own
    from relay_verl.data.prepare import prepare
    from relay_verl.data.schema import iter_rows
    from relay_verl.data.sources import SOURCES, parse_source
    from relay_verl.grading import Grader

    known = (*SOURCES, *REGISTRY.names())
    is_benchmark = name.lower() in REGISTRY or is_named(name)
    is_known = is_benchmark or name.lower() in SOURCES
    copy = None if source is None else parse_source(source)
    columns = OwnColumns(question_column, answer_column)
    own = None if is_known else find_own(name)
    if is_known and (columns.is_given or own_name is not None):
        raise UserError(
            f"--question-column, --answer-column and --name are for a file of your own, and {name} is a dataset with "
            "columns that are known"
        )
    if not is_known and own is None:
        raise UserError(
            f"unknown dataset {name!r}; allowed: {', '.join(known)}, or a file of your own{suggest(name, known)}"
        )
    if own is not None and copy is not None:
        raise UserError(f"--source: {name} is a file of your own; --source replaces the copy of a known dataset")
    if is_benchmark and evaluation:
        raise UserError(f"--evaluation: {name} is a benchmark, of which no question is left out")
    with Grader() as grader:
        if is_benchmark:
            text = write_benchmark(find_benchmark(name), out, copy, is_readable=grader.is_readable)
        else:
            dataset = name if own is None else own_source(name_of_own(own_name, own, known, "--name"), columns)
            rules = {"evaluation": evaluation or (), "ngram": ngram, "min_share": min_share}
            text = prepare(dataset, out, source=copy if own is None else own, **rules).summary()  # type: ignore[arg-type]
            if unreadable := warn_of_unreadable(out, iter_rows(out), grader.is_readable):
                typer.echo(unreadable, err=True)
    if as_json:
        print_json(json.loads(out.with_name(f"{out.name}.manifest.json").read_text()))
    else:
        typer.echo(text)


@app.command("warmup-data", rich_help_panel=DATA)
def warmup_data(
    student: Annotated[str, typer.Option(help="The student before any training: a folder or a hub id.")],
    data: Data,
    out: Annotated[
        Path, typer.Option(parser=user_path, help="Parquet file to write; a report and a picture stand next to it.")
    ],
    recipe: Recipe = None,
    config_dir: ConfigDir = None,
    num_workers: Workers = None,
    overrides: Overrides = None,
) -> None:
    """Sample the student's own responses and put commands into them: the data that teaches it to write commands."""
    from relay_verl.data.generate import generate, plan_warmup_data
    from relay_verl.data.report import report_warmup
    from relay_verl.data.source import Source
    from relay_verl.preflight.commands import check_asked_model, check_generator, check_students_tokenizer

    run = compose_recipe(recipe, overrides, config_dir)
    check_asked_model("--student", student)
    check_students_tokenizer(run.prompts)
    source = Source.scan(data)
    plan = plan_warmup_data(run, source, student)
    _announce(source, plan)
    with results_only():
        generate(run, plan, source, out, check_generator, num_workers=num_workers)
    with by_product(f"the report on {out}"):  # the file itself is whole
        typer.echo(report_warmup(out, run.relay))


@app.command("filter", rich_help_panel=DATA)
def filter_(
    data: Data,
    out: Annotated[Path, typer.Option(parser=user_path, help="Parquet file to write; a picture stands next to it.")],
    recipe: Recipe = None,
    config_dir: ConfigDir = None,
    early_stop: Annotated[
        bool,
        typer.Option("--early-stop", help="Ask no further where it is certain that a question is kept or left out."),
    ] = False,
    num_workers: Workers = None,
    overrides: Overrides = None,
) -> None:
    """Ask the teacher each question several times and keep how often it is right: training leaves out what the teacher
    cannot solve."""
    from relay_verl.data.generate import generate, plan_filter
    from relay_verl.data.golds import warn_of_unreadable
    from relay_verl.data.report import report_filter
    from relay_verl.data.schema import iter_rows
    from relay_verl.data.source import Source
    from relay_verl.grading import Grader
    from relay_verl.preflight.commands import check_filters_models, check_generator

    run = compose_recipe(recipe, overrides, config_dir)
    check_filters_models(run.relay)
    source = Source.scan(data)
    with Grader() as grader:
        if unreadable := warn_of_unreadable(data, iter_rows(data), grader.is_readable):
            typer.echo(unreadable, err=True)
    plan = plan_filter(run, source, stop_early=early_stop)
    _announce(source, plan)
    with results_only():
        generate(run, plan, source, out, check_generator, num_workers=num_workers)
    with by_product(f"the report on {out}"):  # the file itself is whole
        typer.echo(report_filter(out, run.relay.filter))


def _announce(source: Source, plan: Plan) -> None:
    """Say how much work it is before it starts; how long it takes, the bar estimates from its first answers."""
    by = plan.model.base_url or f"{plan.model.num_replicas} engine{'s' * (plan.model.num_replicas != 1)}"
    typer.echo(
        f"{source.num_rows:,} questions, at most {plan.num_requests} responses each, by {by} "
        f"(relay.teacher.num_replicas); progress is shown, and a stopped command continues where it ended",
        err=True,
    )
