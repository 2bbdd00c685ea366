"""Reporting: tables and figures of results, results as small data files, and claims that were settled before."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from relay_verl.cli.evidence import Metrics, parse_metrics
from relay_verl.cli.options import EVALUATE, Json, user_path
from relay_verl.cli.output import print_json
from relay_verl.errors import UserError

app = typer.Typer()


@app.command(rich_help_panel=EVALUATE)
def report(
    results: Annotated[
        list[Path], typer.Argument(parser=user_path, help="Results of `relay-verl eval`, or folders that hold them.")
    ],
    out: Annotated[Path, typer.Option(parser=user_path, help="Folder for report.md, report.html and their pictures.")],
    metrics: Metrics = None,
    by: Annotated[
        str,
        typer.Option(help="Whose verdicts accuracy counts: rule, or judge (the LLM of `relay-verl judge`)."),
    ] = "rule",
    claims: Annotated[
        Path | None,
        typer.Option(parser=user_path, help="Claims that were settled before (see `relay-verl claims`)."),
    ] = None,
    as_json: Json = False,
) -> None:
    """Write your results as tables and figures with 95% intervals, next to the paper's where it has the same."""
    from relay_verl.report import write_report
    from relay_verl.report.summary import summary_of
    from relay_verl.traces.results import find_results, read_result
    from relay_verl.traces.verdicts import parse_verdicts_by

    verdicts_by = parse_verdicts_by(by)
    text = write_report(results, out, metrics=parse_metrics(metrics), by=verdicts_by, claims=claims)
    if as_json:
        summaries = [{"folder": str(place), **summary_of(read_result(place))} for place in find_results(results)]
        print_json({"markdown": str(out / "report.md"), "html": str(out / "report.html"), "results": summaries})
        return
    typer.echo(text)
    typer.echo(f"{out / 'report.html'} is the same as one page")


@app.command(rich_help_panel=EVALUATE)
def condense(
    results: Annotated[
        list[Path], typer.Argument(parser=user_path, help="Results of `relay-verl eval`, or folders that hold them.")
    ],
    out: Annotated[Path, typer.Option(parser=user_path, help="Folder for questions.csv and a CSV a condition.")],
    source: Annotated[
        list[str] | None, typer.Option(help="Copy of a benchmark, NAME=PATH or NAME=hub:ID; repeatable.")
    ] = None,
) -> None:
    """Keep results as small data files: a line a response, without texts, with the hashes of all that decides them."""
    from relay_verl.benchmarks.registry import find_benchmark, load_benchmark, parse_sources
    from relay_verl.traces.condensed import condense as condense_one
    from relay_verl.traces.question_table import facts_of, write_questions
    from relay_verl.traces.results import find_results, read_result

    read = [read_result(place) for place in find_results(results, needs_texts=True)]
    sources = parse_sources(source or ())
    names = dict.fromkeys(name for result in read for name in result.job.get("benchmarks") or {})
    loaded = {name: load_benchmark(find_benchmark(name), sources.get(name)) for name in names}
    questions = facts_of(loaded)
    files = [condense_one(result, questions, out) for result in read]
    files.append(write_questions(out, questions))
    typer.echo(f"{out}: {len(files)} files, {sum(file.stat().st_size for file in files) / 1e3:,.1f} kB")


@app.command(rich_help_panel=EVALUATE)
def claims(
    file: Annotated[Path, typer.Argument(parser=user_path, help="YAML of claims, such as examples/tiny/claims.yaml.")],
    results: Annotated[
        list[Path] | None,
        typer.Option(parser=user_path, help="Folder of data files of `relay-verl condense`; repeatable."),
    ] = None,
    cite: Annotated[
        list[Path] | None,
        typer.Option(parser=user_path, help="Page whose marked numbers are written anew from --results; repeatable."),
    ] = None,
) -> None:
    """Print how many questions each claim needs, or, with --results, what the results show of it."""
    from relay_verl.files import reading, replace_file
    from relay_verl.report.cited import Data
    from relay_verl.report.claim import read_claims
    from relay_verl.report.claim_power import check_power, power_table
    from relay_verl.report.claim_tables import changes_table, claims_table
    from relay_verl.report.document import table_to_markdown

    if not results:
        if cite:
            raise UserError("--cite: needs --results, the data files whose numbers a page cites")
        settled = read_claims(file)
        table = power_table(settled)
        typer.echo(f"{table_to_markdown(table)}\n\n{table.note}\n\nfingerprint: {settled.fingerprint}")
        check_power(settled)
        return
    data = Data(results, file)
    for shown in (claims_table(data.claims, data.judged), changes_table(data.claims)):
        typer.echo(f"{table_to_markdown(shown)}\n\n{shown.note}\n")
    for page in cite or ():
        with reading(page):
            text = page.read_text(encoding="utf-8")
        replace_file(page, data.cite(text).encode())
        typer.echo(f"{page}: its marked numbers are those of the results", err=True)
