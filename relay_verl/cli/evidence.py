"""Pages beyond the report: what a trained pair learned, and what of the paper reproduces."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Annotated

import typer

from relay_verl.cli.options import EVALUATE, AnswerColumn, QuestionColumn, user_path
from relay_verl.errors import UserError

app = typer.Typer()
Metrics = Annotated[
    list[str] | None, typer.Option(help="Log of a training run as LABEL=PATH, for learning curves; repeatable.")
]


def parse_metrics(values: Sequence[str] | None) -> dict[str, Path]:
    """The logs of training runs that a command line names, by label.

    Raises:
        UserError: a value is not LABEL=PATH, or a label is there twice.
    """
    logs: dict[str, Path] = {}
    for item in values or ():
        label, separator, path = item.partition("=")
        if not (label and separator and path) or label in logs:
            raise UserError(f"--metrics: {item!r} is not LABEL=PATH with a label of its own")
        logs[label] = Path(path).expanduser()
    return logs


@app.command(rich_help_panel=EVALUATE)
def learned(
    results: Annotated[
        list[Path], typer.Argument(parser=user_path, help="Results of `relay-verl eval`, or folders that hold them.")
    ],
    out: Annotated[
        Path, typer.Option(parser=user_path, help="Folder for learned.html, learned.md, pictures and data as CSV.")
    ],
    benchmark: Annotated[
        list[str] | None,
        typer.Option(help="The questions of the results, as for eval; by the names in the results if not given."),
    ] = None,
    source: Annotated[
        list[str] | None, typer.Option(help="Copy of a benchmark, NAME=PATH or NAME=hub:ID; repeatable.")
    ] = None,
    question_column: QuestionColumn = None,
    answer_column: AnswerColumn = None,
    needed: Annotated[
        str | None,
        typer.Option(
            help="Key at the questions' extra_info with the teacher's tokens that a question needs; `needed` where "
            "they have it."
        ),
    ] = None,
    grade: Annotated[
        str | None,
        typer.Option(help="Key there with a number for a question's difficulty; `grade` where they have it."),
    ] = None,
    metrics: Metrics = None,
    by: Annotated[str, typer.Option(help="Whose verdicts accuracy counts: rule, or judge.")] = "rule",
) -> None:
    """Show what a trained pair learned: n against the tokens needed, where calls stand, what they were good for."""
    from relay_verl.benchmarks.own import find_benchmarks
    from relay_verl.benchmarks.registry import load_benchmark, parse_sources
    from relay_verl.data.own import OwnColumns
    from relay_verl.report.groups import group_results
    from relay_verl.report.learned import PAGE, write_learned
    from relay_verl.report.learned_data import Pair
    from relay_verl.report.question_numbers import numbers_of
    from relay_verl.traces.results import find_results, read_result
    from relay_verl.traces.verdicts import parse_verdicts_by

    logs, verdicts_by = parse_metrics(metrics), parse_verdicts_by(by)
    read = [read_result(folder) for folder in find_results(results)]
    asked = list(dict.fromkeys(name for result in read for name in result.job.get("benchmarks") or {}))
    chosen, own = find_benchmarks(benchmark or asked, OwnColumns(question_column, answer_column))
    sources = parse_sources(source or ()) | own
    numbers = numbers_of({each.name: load_benchmark(each, sources.get(each.name)) for each in chosen}, read)
    pair = Pair(
        group_results(read, verdicts_by),
        numbers,
        numbers.choose("--needed", needed, "needed"),
        numbers.choose("--grade", grade, "grade"),
    )
    if not pair.names:
        raise UserError(f"{', '.join(map(str, results))}: expected responses, got results without any")
    typer.echo(write_learned(pair, logs, out))
    typer.echo(f"{out / f'{PAGE}.html'} is the same as one page, and {out} has the numbers as CSV")


@app.command(rich_help_panel=EVALUATE)
def reproduction(
    out: Annotated[
        Path, typer.Option(parser=user_path, help="Folder for reproduction.html, reproduction.md and its numbers.")
    ],
    results: Annotated[
        list[Path] | None,
        typer.Argument(parser=user_path, help="Our results, of `relay-verl eval`; without any their cells are empty."),
    ] = None,
    by: Annotated[str, typer.Option(help="Whose verdicts accuracy counts: rule, or judge.")] = "rule",
) -> None:
    """Set the paper, every public attempt to reproduce it and your results side by side, with the command for each."""
    from relay_verl.report.groups import group_results
    from relay_verl.report.reproduction import PAGE, write_reproduction
    from relay_verl.traces.results import find_results, read_result
    from relay_verl.traces.verdicts import parse_verdicts_by

    read = [read_result(folder) for folder in find_results(results or ())]
    typer.echo(write_reproduction(group_results(read, parse_verdicts_by(by)), out))
    typer.echo(f"{out / f'{PAGE}.html'} is the same as one page, and {out / f'{PAGE}.csv'} has its numbers")
