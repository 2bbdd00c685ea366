"""Every way to share work between two models, measured on the same questions and drawn as one frontier."""

from __future__ import annotations

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
    user_path,
)
from relay_verl.cli.output import print_json, results_only
from relay_verl.extensions import FORM

app = typer.Typer()


@app.command(rich_help_panel=EVALUATE)
def frontier(
    out: Annotated[
        Path, typer.Option(parser=user_path, help="Folder for frontier.html, its pictures as SVG, and frontier.csv.")
    ],
    benchmark: Annotated[
        list[str], typer.Option(help=f"Benchmark by name, FILE or NAME=FILE, or {FORM}, as for eval; repeatable.")
    ],
    teacher: Annotated[str, typer.Option(help="Teacher: a folder, a hub id, an endpoint's URL or engine:NAME.")],
    student: Annotated[
        list[str],
        typer.Option(
            help="Student, likewise; or NAME=MODEL for each of several that methods name, repeatable. One NAME with "
            "several models: trainings with different seeds."
        ),
    ],
    methods: Annotated[
        Path | None,
        typer.Option(
            parser=user_path,
            help="YAML list of methods (name, policy, student, options); that of relay_verl/frontier if not given.",
        ),
    ] = None,
    plan: Annotated[
        bool, typer.Option("--plan", help="Ask a few questions under every method and print what the whole will cost.")
    ] = False,
    trial_questions: Annotated[int, typer.Option(min=1, help="Questions of each benchmark that --plan asks.")] = 4,
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
        float | None, typer.Option(min=0, help="Sampling temperature; the benchmark's own sampling if not given.")
    ] = None,
    seed: Annotated[int, typer.Option(help="Seed of the sampling and of what a policy draws.")] = 0,
    deterministic: Annotated[
        bool, typer.Option("--deterministic", help="One response at a time, so that greedy runs agree; slow.")
    ] = False,
    model: Annotated[
        list[str] | None, typer.Option(help="Name of a model at an endpoint, NAME=URL; repeatable.")
    ] = None,
    tokenizer: Annotated[str | None, typer.Option(help="Whose tokenizer it is, where all are endpoints.")] = None,
    student_replicas: Annotated[int, typer.Option(min=1, help="vLLM replicas of each student.")] = 1,
    num_workers: Workers = None,
    as_json: Json = False,
    overrides: Overrides = None,
) -> None:
    """Compare every way to share work: accuracy against teacher tokens, FLOPs, money and seconds, on one frontier."""
    from relay_verl.benchmarks.own import find_benchmarks
    from relay_verl.benchmarks.registry import load_benchmark, parse_sources
    from relay_verl.checkpoints.relay_file import find_relay_file
    from relay_verl.cli.student_settings import compose_for_student
    from relay_verl.data.own import OwnColumns
    from relay_verl.errors import UserError
    from relay_verl.evaluation.suite import EvalSuite
    from relay_verl.frontier import frontier_page, trial_plan
    from relay_verl.frontier.measuring import Experiment, ask, collect
    from relay_verl.frontier.method_list import read_methods
    from relay_verl.frontier.players import Players, parse_endpoint_models, parse_students
    from relay_verl.preflight.commands import check_evaluation

    chosen_methods = read_methods(methods)
    players = Players(teacher, parse_students(student))
    players.check(chosen_methods)
    chosen, own = find_benchmarks(benchmark, OwnColumns(question_column, answer_column))
    sources = parse_sources(source or ())
    if stray := sources.keys() - {each.name for each in chosen}:
        raise UserError(f"--source: {', '.join(sorted(stray))} is not among --benchmark {', '.join(benchmark)}")
    sources |= own
    # all methods have the same settings: those of the first student that says what it was trained under
    addresses = [address for models in players.students.values() for address in models]
    trained = next((address for address in addresses if find_relay_file(address)), None)
    run, _ = compose_for_student(trained, recipe, overrides, config_dir)
    questions = {each.name: (each, load_benchmark(each, sources.get(each.name), limit=limit)) for each in chosen}
    experiment = Experiment(
        run,
        chosen_methods,
        players,
        EvalSuite(questions, num_samples, temperature, seed, deterministic),
        check_evaluation,
        tokenizer,
        parse_endpoint_models(model or ()),
        student_replicas,
        num_workers,
    )
    all_seeds = experiment.all_seeds(out / trial_plan.RESULTS).values()  # each of them is checked here
    seeds = [seed for of_method in all_seeds for seed in of_method]
    prices = experiment.ledger.prices
    currency = prices.currency if prices else None
    if plan:
        with results_only():
            plans = trial_plan.plan(experiment, out, trial_questions)
        if as_json:
            print_json({"out": str(out), "plan": trial_plan.plan_to_rows(plans, currency)})
        else:
            typer.echo(trial_plan.plan_to_markdown(plans, currency))
        return
    typer.echo(
        f"{experiment.suite.num_queries * len(seeds):,} responses: {experiment.suite.num_queries:,} under each of "
        f"{len(seeds)} conditions; a stopped command continues where it ended",
        err=True,
    )
    with results_only():
        ask(experiment, experiment.suite, seeds)
    comparison = frontier_page.compare_methods(collect(experiment, out / trial_plan.RESULTS), experiment.ledger)
    text = frontier_page.write_frontier(comparison, experiment, out)
    if as_json:
        print_json({"out": str(out), "methods": frontier_page.to_rows(comparison)})
        return
    typer.echo(f"{text}\n\n{out / frontier_page.PAGE} has the pictures and what dominates what")
