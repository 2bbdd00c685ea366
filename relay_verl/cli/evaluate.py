"""What comes after it: measuring, judging, reading, reporting."""

from __future__ import annotations

import asyncio
import shlex
from pathlib import Path
from typing import Annotated

import typer

from relay_verl.cli.options import (
    EVALUATE,
    AnswerColumn,
    ConfigDir,
    Json,
    Overrides,
    QuestionColumn,
    Recipe,
    Workers,
    compose_recipe,
)
from relay_verl.cli.output import print_json, results_only
from relay_verl.errors import UserError

app = typer.Typer()


@app.command("eval", rich_help_panel=EVALUATE)
def eval_(
    out: Annotated[Path, typer.Option(help="Folder; each policy gets a results folder in it.")],
    benchmark: Annotated[
        list[str],
        typer.Option(
            help="Benchmark by name, such as math-500; or a file of your own, FILE or NAME=FILE, with a question and "
            "an answer in each row (CSV, JSON, JSON Lines, parquet); repeatable."
        ),
    ],
    student: Annotated[str | None, typer.Option(help="Student: a folder, a hub id, or an endpoint's URL.")] = None,
    teacher: Annotated[str | None, typer.Option(help="Teacher, likewise; need not be the one of the training.")] = None,
    policy: Annotated[
        list[str],
        typer.Option(
            help="Who asks the teacher, repeatable: learned (the student, by its commands), teacher_free (commands are "
            "banned), fixed_N (each call is N tokens), random_P (a call before each token with probability P), "
            "router_P (a question goes to the teacher alone with probability P), student_alone, teacher_alone."
        ),
    ] = ["learned"],  # noqa: B006 (typer copies it)
    row: Annotated[
        str | None,
        typer.Option(help="Row of the paper's tables that the student is, such as 1.7b/relay, for the report."),
    ] = None,
    source: Annotated[
        list[str] | None, typer.Option(help="Copy of a benchmark, NAME=PATH or NAME=hub:ID; repeatable.")
    ] = None,
    question_column: QuestionColumn = None,
    answer_column: AnswerColumn = None,
    recipe: Recipe = None,
    config_dir: ConfigDir = None,
    limit: Annotated[int | None, typer.Option(min=1, help="Only the first questions of each benchmark.")] = None,
    num_samples: Annotated[
        int | None, typer.Option(min=1, help="Responses a question; the benchmark's own number if not given.")
    ] = None,
    temperature: Annotated[
        float | None,
        typer.Option(
            min=0,
            help="Sampling temperature of whoever writes the responses, without top_p and top_k; the benchmark's own "
            "sampling if not given.",
        ),
    ] = None,
    seed: Annotated[int, typer.Option(help="Seed of the sampling and of what a policy draws.")] = 0,
    deterministic: Annotated[
        bool, typer.Option("--deterministic", help="One response at a time, so that greedy runs agree; slow.")
    ] = False,
    teacher_name: Annotated[str | None, typer.Option(help="What tables call the teacher.")] = None,
    student_model: Annotated[str | None, typer.Option(help="The student's name at its endpoint.")] = None,
    teacher_model: Annotated[str | None, typer.Option(help="The teacher's name at its endpoint.")] = None,
    tokenizer: Annotated[str | None, typer.Option(help="Whose tokenizer it is, where all are endpoints.")] = None,
    student_replicas: Annotated[int, typer.Option(min=1, help="vLLM replicas of the student.")] = 1,
    judge_url: Annotated[str | None, typer.Option(help="OpenAI-compatible endpoint of an LLM judge.")] = None,
    judge_model: Annotated[str | None, typer.Option(help="The judge's name there.")] = None,
    num_workers: Workers = None,
    as_json: Json = False,
    overrides: Overrides = None,
) -> None:
    """Measure a student, with a teacher or without, on benchmarks or on questions of your own."""
    from relay_verl.benchmarks.own import find_benchmarks
    from relay_verl.benchmarks.registry import load_benchmark, parse_sources
    from relay_verl.data.golds import warn_of_unreadable
    from relay_verl.data.own import OwnColumns
    from relay_verl.evaluation.runner import Condition, Exam, evaluate
    from relay_verl.grading import Grader
    from relay_verl.judging.judge import make_judge
    from relay_verl.preflight.commands import check_evaluation, check_judge
    from relay_verl.recipes.paper import find_row
    from relay_verl.report.summary import summary_of
    from relay_verl.report.summary_table import summarize, to_markdown
    from relay_verl.traces.results import read_result

    if row is not None:
        find_row(row)
    chosen, own = find_benchmarks(benchmark, OwnColumns(question_column, answer_column))
    conditions = [
        Condition(name, out / name, student, teacher, name, row, teacher_name) for name in dict.fromkeys(policy)
    ]
    judge = make_judge(judge_url, judge_model)
    sources = parse_sources(source or ())
    if stray := sources.keys() - {each.name for each in chosen}:
        raise UserError(f"--source: {', '.join(sorted(stray))} is not among --benchmark {', '.join(benchmark)}")
    sources |= own
    run = compose_recipe(recipe, overrides, config_dir)
    questions = {each.name: (each, load_benchmark(each, sources.get(each.name), limit=limit)) for each in chosen}
    with Grader() as grader:
        for name, (_, loaded) in questions.items():
            unreadable = warn_of_unreadable(name, loaded.rows, grader.is_readable)
            for warning in (*loaded.warnings, *filter(None, [unreadable])):
                typer.echo(warning, err=True)
    if judge is not None:
        check_judge(judge)
    exam = Exam(questions, num_samples, temperature, seed, deterministic, judge)
    names = {student: student_model, teacher: teacher_model}
    typer.echo(
        f"{exam.num_queries * len(conditions):,} responses: {exam.num_queries:,} under each of {len(conditions)} "
        "policies; progress is shown, and a stopped command continues where it ended",
        err=True,
    )
    with results_only():
        evaluate(
            run,
            conditions,
            exam,
            check_evaluation,
            tokenizer_path=tokenizer,
            endpoint_models={address: name for address, name in names.items() if address and name},
            student_replicas=student_replicas,
            num_workers=num_workers,
        )
    results = [read_result(condition.out) for condition in conditions]
    if as_json:
        print_json({"out": str(out), "results": [summary_of(result) for result in results]})
        return
    records = [record for result in results for record in result.records]
    typer.echo(f"{to_markdown(summarize(records))}\n\n{out} has every response, and summary.json of each policy")
    folder = shlex.quote(str(out))
    typer.echo(f"next: relay-verl report {folder} --out report; relay-verl trace {folder} --out trace.html")


@app.command(rich_help_panel=EVALUATE)
def judge(
    results: Annotated[list[Path], typer.Argument(help="Results folders, or folders that hold such.")],
    judge_url: Annotated[str, typer.Option(help="OpenAI-compatible endpoint; its key is RELAY_JUDGE_API_KEY.")],
    judge_model: Annotated[str, typer.Option(help="The judge's name there.")],
    max_concurrency: Annotated[int, typer.Option(min=1, help="Requests at a time.")] = 32,
) -> None:
    """Have an LLM judge every response of finished results, right ones and wrong ones, in addition to the rule."""
    from relay_verl.judging.judge import make_judge
    from relay_verl.judging.judge_results import judge_results
    from relay_verl.preflight.commands import check_judge
    from relay_verl.report.summary import write_summary
    from relay_verl.traces.results import find_results

    folders, asked = find_results(results), make_judge(judge_url, judge_model)
    assert asked is not None
    check_judge(asked)
    for folder in folders:
        agreement = asyncio.run(judge_results(folder, asked, max_concurrency))
        write_summary(folder)
        typer.echo(f"{folder}\n{agreement.to_markdown()}\n")


@app.command(rich_help_panel=EVALUATE)
def trace(
    results: Annotated[
        list[Path], typer.Argument(help="Results folders, folders that hold such, or JSONL files of responses.")
    ],
    out: Annotated[Path, typer.Option(help="HTML file to write.")] = Path("trace.html"),
    limit: Annotated[
        int | None, typer.Option(min=1, help="Most responses of each condition and benchmark; all if not given.")
    ] = None,
    card: Annotated[
        Path | None, typer.Option(help="SVG file to write instead: one response as a picture; needs --id.")
    ] = None,
    id: Annotated[str | None, typer.Option(help="Id of the question to draw.")] = None,
    condition: Annotated[str | None, typer.Option(help="Its condition, where several answered it.")] = None,
    sample: Annotated[int | None, typer.Option(min=0, help="Its sample, where there are several.")] = None,
    cards: Annotated[
        Path | None,
        typer.Option(help="Folder to write instead: pictures of responses that show what calls do, picked by rule."),
    ] = None,
    num: Annotated[int, typer.Option(min=1, help="How many of these pictures.")] = 3,
) -> None:
    """Write one page to read responses: who wrote what, what each call got, and how it was judged."""
    from relay_verl.pages.card_choice import name_kind
    from relay_verl.pages.collect import write_card, write_cards, write_trace

    if (card is None) != (id is None):
        raise UserError("--card and --id: one needs the other: where to write the picture, and of which question")
    if card is not None and cards is not None:
        raise UserError("--card and --cards: give one: a picture of --id, or a folder of several")
    if card is None and (condition, sample) != (None, None):
        raise UserError("--condition and --sample: for --card, they tell the responses to one question apart")
    if card is not None:
        assert id is not None
        typer.echo(f"{card}: {name_kind(write_card(results, card, id, condition=condition, sample=sample))}")
        return
    if cards is not None:
        typer.echo("\n".join(map(str, write_cards(results, cards, num))))
        return
    num_shown = write_trace(results, out, limit=limit)
    typer.echo(f"{out}: {num_shown:,} response{'s' * (num_shown != 1)}, {out.stat().st_size / 1e6:.1f} MB")


@app.command(rich_help_panel=EVALUATE)
def report(
    results: Annotated[list[Path], typer.Argument(help="Results of `relay-verl eval`, or folders that hold them.")],
    out: Annotated[Path, typer.Option(help="Folder for report.md, report.html and their pictures.")],
    metrics: Annotated[
        list[str] | None, typer.Option(help="Log of a training run as LABEL=PATH, for learning curves; repeatable.")
    ] = None,
    by: Annotated[
        str,
        typer.Option(help="Whose verdicts accuracy counts: rule, or judge (the LLM of `relay-verl judge`)."),
    ] = "rule",
    as_json: Json = False,
) -> None:
    """Write your results as tables and figures with 95% intervals, next to the paper's where it has the same."""
    from relay_verl.report import write_report
    from relay_verl.report.summary import summary_of
    from relay_verl.traces.results import find_results, read_result
    from relay_verl.traces.verdicts import parse_verdicts_by

    verdicts_by = parse_verdicts_by(by)
    logs: dict[str, Path] = {}
    for item in metrics or ():
        label, found, path = item.partition("=")
        if not (label and found and path) or label in logs:
            raise UserError(f"--metrics: {item!r} is not LABEL=PATH with a label of its own")
        logs[label] = Path(path)
    text = write_report(results, out, metrics=logs, by=verdicts_by)
    if as_json:
        summaries = [{"folder": str(folder), **summary_of(read_result(folder))} for folder in find_results(results)]
        print_json({"markdown": str(out / "report.md"), "html": str(out / "report.html"), "results": summaries})
        return
    typer.echo(text)
    typer.echo(f"{out / 'report.html'} is the same as one page")
