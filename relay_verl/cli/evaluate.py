"""What comes after it: measuring, judging, reading."""

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
    Refusals,
    Thinking,
    Workers,
    user_path,
)
from relay_verl.cli.output import print_json, results_only
from relay_verl.config import RelaySettings
from relay_verl.errors import UserError
from relay_verl.extensions import FORM
from relay_verl.policies import help_text

app = typer.Typer()
JudgeName = Annotated[
    str | None, typer.Option("--judge", help=f"Judge of another package, as {FORM} or by its entry point's name.")
]


@app.command("eval", rich_help_panel=EVALUATE)
def eval_(
    out: Annotated[Path, typer.Option(parser=user_path, help="Folder; each policy gets a results folder in it.")],
    benchmark: Annotated[
        list[str],
        typer.Option(
            help="Benchmark by name, such as math-500; or a file of your own, FILE or NAME=FILE, with a question and "
            "an answer in each row (CSV, JSON, JSON Lines, parquet); or one of another package as "
            f"{FORM}; repeatable."
        ),
    ],
    student: Annotated[str | None, typer.Option(help="Student: a folder, a hub id, or an endpoint's URL.")] = None,
    teacher: Annotated[
        str | None,
        typer.Option(
            help=f"Teacher, likewise, or engine:NAME for an engine of another package ({FORM}, or its entry point's "
            "name); need not be the one of the training."
        ),
    ] = None,
    policy: Annotated[
        list[str] | None,
        typer.Option(
            help=f"Who asks the teacher, repeatable: {help_text()}; or one of another package as {FORM}. The student's "
            "own (relay.json) if not given, else learned."
        ),
    ] = None,
    row: Annotated[
        str | None,
        typer.Option(help="Row of the paper's tables that the student is, such as 1.7b/relay, for the report."),
    ] = None,
    training_seed: Annotated[
        int | None, typer.Option(min=0, help="Seed of the student's training, for a report over several.")
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
    thinking: Thinking = False,
    refusals: Refusals = 0,
    seed: Annotated[int, typer.Option(help="Seed of the sampling and of what a policy draws.")] = 0,
    deterministic: Annotated[
        bool, typer.Option("--deterministic", help="One response at a time, so that greedy runs agree; slow.")
    ] = False,
    teacher_name: Annotated[str | None, typer.Option(help="What tables call the teacher.")] = None,
    student_model: Annotated[str | None, typer.Option(help="The student's name at its endpoint.")] = None,
    teacher_model: Annotated[str | None, typer.Option(help="The teacher's name at its endpoint.")] = None,
    tokenizer: Annotated[str | None, typer.Option(help="Whose tokenizer it is, where all are endpoints.")] = None,
    student_replicas: Annotated[int, typer.Option(min=1, help="vLLM replicas of the student.")] = 1,
    judge: JudgeName = None,
    judge_url: Annotated[str | None, typer.Option(help="OpenAI-compatible endpoint of an LLM judge.")] = None,
    judge_model: Annotated[str | None, typer.Option(help="The judge's name there.")] = None,
    num_workers: Workers = None,
    as_json: Json = False,
    overrides: Overrides = None,
) -> None:
    """Measure a student, with a teacher or without, on benchmarks or on questions of your own."""
    from relay_verl.benchmarks.own import find_benchmarks
    from relay_verl.benchmarks.registry import load_benchmark, parse_sources
    from relay_verl.cli.student_settings import compose_for_student
    from relay_verl.data.golds import warn_of_unreadable
    from relay_verl.data.own import OwnColumns
    from relay_verl.evaluation.runner import evaluate
    from relay_verl.evaluation.suite import Condition, EvalSuite
    from relay_verl.grading import Grader
    from relay_verl.judging.other_judge import choose_judge
    from relay_verl.preflight.commands import check_evaluation, check_judge
    from relay_verl.recipes.paper import find_row
    from relay_verl.report.spending_table import spending_to_markdown
    from relay_verl.report.summary import summary_of
    from relay_verl.report.summary_table import summaries_to_markdown, summarize
    from relay_verl.traces.results import read_result
    from relay_verl.traces.words import serves_commands

    if row is not None:
        find_row(row)
    chosen, own = find_benchmarks(benchmark, OwnColumns(question_column, answer_column))
    run, own_policy = compose_for_student(student, recipe, overrides, config_dir, thinks=thinking)
    policies = list(dict.fromkeys(policy or [own_policy]))
    refused = [name for name in policies if serves_commands(name)] or policies  # without one the condition says so
    conditions = [
        Condition(
            name,
            out / name.replace(":", "."),
            student,
            teacher,
            name,
            row,
            teacher_name,
            training_seed=training_seed,
            num_refusals=refusals if name in refused else 0,
        )
        for name in policies
    ]
    chosen_judge = choose_judge(judge, judge_url, judge_model)
    sources = parse_sources(source or ())
    if stray := sources.keys() - {each.name for each in chosen}:
        raise UserError(f"--source: {', '.join(sorted(stray))} is not among --benchmark {', '.join(benchmark)}")
    sources |= own
    questions = {each.name: (each, load_benchmark(each, sources.get(each.name), limit=limit)) for each in chosen}
    with Grader() as grader:
        for name, (_, loaded) in questions.items():
            unreadable = warn_of_unreadable(name, loaded.rows, grader.is_readable)
            for warning in (*loaded.warnings, *filter(None, [unreadable])):
                typer.echo(warning, err=True)
    if chosen_judge is not None:
        check_judge(chosen_judge)
    suite = EvalSuite(questions, num_samples, temperature, seed, deterministic, chosen_judge)
    names = {student: student_model, teacher: teacher_model}
    typer.echo(
        f"{suite.num_queries * len(conditions):,} responses: {suite.num_queries:,} under each of {len(conditions)} "
        "policies; progress is shown, and a stopped command continues where it ended",
        err=True,
    )
    with results_only():
        evaluate(
            run,
            conditions,
            suite,
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
    typer.echo(
        f"{summaries_to_markdown(summarize(records))}\n\n{spending_to_markdown(results)}\n\n"
        f"{out} has every response, and summary.json of each policy"
    )
    folder = shlex.quote(str(out))
    typer.echo(f"next: relay-verl report {folder} --out report; relay-verl trace {folder} --out trace.html")


@app.command(rich_help_panel=EVALUATE)
def judge(
    results: Annotated[
        list[Path], typer.Argument(parser=user_path, help="Results folders, or folders that hold such.")
    ],
    judge_url: Annotated[
        str | None, typer.Option(help="OpenAI-compatible endpoint; its key is RELAY_JUDGE_API_KEY.")
    ] = None,
    judge_model: Annotated[str | None, typer.Option(help="The judge's name there.")] = None,
    judge: JudgeName = None,
    max_concurrency: Annotated[int, typer.Option(min=1, help="Requests at a time.")] = 32,
    max_failed_share: Annotated[
        float,
        typer.Option(
            min=0, max=1, help="Largest share of the responses that may stay without a reply; 1 sets no limit."
        ),
    ] = RelaySettings.max_failed_call_share,
) -> None:
    """Have an LLM judge every response of finished results, right ones and wrong ones, in addition to the rule."""
    from relay_verl.judging.judge_results import judge_results
    from relay_verl.judging.other_judge import choose_judge
    from relay_verl.preflight.commands import check_judge
    from relay_verl.report.summary import write_summary
    from relay_verl.traces.results import find_results

    folders, asked = find_results(results, needs_texts=True), choose_judge(judge, judge_url, judge_model)
    if asked is None:
        raise UserError("judge: give --judge-url and --judge-model, or --judge")
    check_judge(asked)
    for folder in folders:
        agreement = asyncio.run(judge_results(folder, asked, max_concurrency, max_failed_share))
        write_summary(folder)
        typer.echo(f"{folder}\n{agreement.to_markdown()}\n")


@app.command(rich_help_panel=EVALUATE)
def trace(
    results: Annotated[
        list[Path],
        typer.Argument(parser=user_path, help="Results folders, folders that hold such, or JSONL files of responses."),
    ],
    out: Annotated[Path, typer.Option(parser=user_path, help="HTML file to write.")] = Path("trace.html"),
    limit: Annotated[
        int | None, typer.Option(min=1, help="Most responses of each condition and benchmark; all if not given.")
    ] = None,
    card: Annotated[
        Path | None,
        typer.Option(parser=user_path, help="SVG file to write instead: one response as a picture; needs --id."),
    ] = None,
    id: Annotated[str | None, typer.Option(help="Id of the question to draw.")] = None,
    condition: Annotated[str | None, typer.Option(help="Its condition, where several answered it.")] = None,
    sample: Annotated[int | None, typer.Option(min=0, help="Its sample, where there are several.")] = None,
    cards: Annotated[
        Path | None,
        typer.Option(
            parser=user_path,
            help="Folder to write instead: pictures of responses that show what calls do, picked by rule.",
        ),
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
