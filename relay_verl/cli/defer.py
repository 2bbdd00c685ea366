"""Defer heads: their labels, their training, their threshold."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer

from relay_verl.cli.options import (
    DATA,
    EVALUATE,
    TRAIN,
    AnswerColumn,
    ConfigDir,
    Data,
    Json,
    Overrides,
    QuestionColumn,
    Workers,
    compose_recipe,
    user_path,
)
from relay_verl.cli.output import print_json, results_only
from relay_verl.errors import UserError

CITER_RECIPE = "citer_1.7b"
"""The recipe where none is named."""
CiterRecipe = Annotated[
    str | None,
    typer.Option(
        help="Recipe that says which models, and how the head is made; +recipe=NAME does the same.",
        show_default=CITER_RECIPE,
    ),
]
app = typer.Typer()


@app.command("defer-data", rich_help_panel=DATA)
def defer_data(
    data: Data,
    out: Annotated[Path, typer.Option(parser=user_path, help="Parquet file of labels to write.")],
    head: Annotated[
        Path | None,
        typer.Option(
            parser=user_path,
            help="Head that was trained on the labels of --data: label again, with rollouts under it.",
        ),
    ] = None,
    logprobs: Annotated[
        bool,
        typer.Option(help="Also keep the references' probabilities, which collm needs: a second prefill a model."),
    ] = True,
    recipe: CiterRecipe = None,
    config_dir: ConfigDir = None,
    num_workers: Workers = None,
    as_json: Json = False,
    overrides: Overrides = None,
) -> None:
    """Label each token of a right answer of the teacher's: may the student write there?"""
    from relay_verl.data.source import Source
    from relay_verl.defer_training.label_plan import plan_labels, plan_new_labels, student_of
    from relay_verl.defer_training.label_run import write_labels
    from relay_verl.preflight.commands import check_asked_model, check_bench, check_filters_models

    run = compose_recipe(recipe, overrides, config_dir, CITER_RECIPE)
    check_asked_model("actor_rollout_ref.model.path", student_of(run))
    check_filters_models(run.relay)
    source = Source.scan(data)

    def check(source: Source, tokenizer: Any, path: str) -> None:
        check_bench([row for _, row in source.queries()], tokenizer, path, run.prompts.template)

    plan = plan_labels(run, source, wants_logprobs=logprobs) if head is None else plan_new_labels(run, source, head)
    typer.echo(
        f"iteration {plan.iteration}: {source.num_rows:,} questions; progress is shown, and a stopped command "
        "continues where it ended",
        err=True,
    )
    with results_only():
        manifest = write_labels(run, plan, source, out, check, num_workers=num_workers)
    summary = manifest["summary"]
    if as_json:
        print_json({"out": str(out), **summary})
        return
    typer.echo(
        f"{out}: {summary['num_tokens']:,} tokens of {summary['num_queries']:,} answers: the student has "
        f"{summary['num_student']:,}, the teacher alone {summary['num_teacher']:,}, neither "
        f"{summary['num_rollout']:,}, where {summary['rollout_right_share']:.1%} of the rollouts are right"
    )


@app.command("defer-train", rich_help_panel=TRAIN)
def defer_train(
    labels: Annotated[
        Path, typer.Option("--data", parser=user_path, help="Labels that `relay-verl defer-data` wrote.")
    ],
    out: Annotated[Path, typer.Option(parser=user_path, help="Folder of the head to write.")],
    device: Annotated[
        str | None, typer.Option(help="Where it trains, as torch names it; a GPU where there is one if not given.")
    ] = None,
    recipe: CiterRecipe = None,
    config_dir: ConfigDir = None,
    as_json: Json = False,
    overrides: Overrides = None,
) -> None:
    """Train a head on labels: relay.defer_training says which, and how."""
    from relay_verl.defer_training.head_training import PICTURE, train_head

    run = compose_recipe(recipe, overrides, config_dir, CITER_RECIPE)
    with results_only():
        facts = train_head(run, labels, out, device=device)
    if as_json:
        print_json({"out": str(out), **facts})
        return
    best = facts["epochs"][facts["best_epoch"] - 1]
    typer.echo(
        f"{out}: a {facts['kind']} head, epoch {facts['best_epoch']} of {len(facts['epochs'])} at learning rate "
        f"{facts['learning_rate']:g}: held-out loss {best['held_out_loss']:.4f}, area under the ROC curve "
        f"{best['held_out_auc']:.3f}; {out / PICTURE} is its learning curve"
    )


@app.command(rich_help_panel=EVALUATE)
def calibrate(
    head: Annotated[Path, typer.Argument(parser=user_path, help="Folder of the head, which gets the threshold.")],
    out: Annotated[Path, typer.Option(parser=user_path, help="Folder for the evaluations of the thresholds tried.")],
    benchmark: Annotated[
        list[str],
        typer.Option(help="Held-out questions, as for `relay-verl eval`: a benchmark, FILE or NAME=FILE; repeatable."),
    ],
    target_ratio: Annotated[
        float | None,
        typer.Option(help="Share of all tokens that the teacher writes, such as 0.01; the recipe's if not given."),
    ] = None,
    student: Annotated[
        str | None, typer.Option(help="Student: a folder, a hub id or an endpoint's URL; the recipe's if not given.")
    ] = None,
    teacher: Annotated[str | None, typer.Option(help="Teacher, likewise.")] = None,
    tolerance: Annotated[
        float, typer.Option(min=0, max=1, help="How far from the target the share may be, as a share of it.")
    ] = 0.1,
    most: Annotated[int, typer.Option(min=1, help="Thresholds that are tried at most.")] = 10,
    source: Annotated[
        list[str] | None, typer.Option(help="Copy of a benchmark, NAME=PATH or NAME=hub:ID; repeatable.")
    ] = None,
    question_column: QuestionColumn = None,
    answer_column: AnswerColumn = None,
    limit: Annotated[int | None, typer.Option(min=1, help="Only the first questions of each benchmark.")] = None,
    recipe: CiterRecipe = None,
    config_dir: ConfigDir = None,
    num_workers: Workers = None,
    as_json: Json = False,
    overrides: Overrides = None,
) -> None:
    """Set a head's threshold so that the teacher writes a given share of the tokens on held-out questions."""
    from relay_verl.benchmarks.own import find_benchmarks
    from relay_verl.benchmarks.registry import load_benchmark, parse_sources
    from relay_verl.data.own import OwnColumns
    from relay_verl.defer_training.calibration import calibrate as run_calibration
    from relay_verl.defer_training.label_plan import student_of
    from relay_verl.evaluation.suite import EvalSuite
    from relay_verl.preflight.commands import check_evaluation

    run = compose_recipe(recipe, overrides, config_dir, CITER_RECIPE)
    target = target_ratio if target_ratio is not None else run.relay.defer_training.target_ratio
    if target is None:
        raise UserError("--target-ratio: expected a share, as the recipe has none at relay.defer_training.target_ratio")
    teacher = teacher or run.relay.only_teacher.address
    if teacher is None:
        raise UserError("--teacher: expected one, as the recipe has none at relay.teacher.path")
    chosen, own = find_benchmarks(benchmark, OwnColumns(question_column, answer_column))
    sources = {**parse_sources(source or ()), **own}
    questions = {each.name: (each, load_benchmark(each, sources.get(each.name), limit=limit)) for each in chosen}
    with results_only():
        calibrated = run_calibration(
            run,
            head,
            teacher,
            EvalSuite(questions),
            out,
            check_evaluation,
            student=student or student_of(run),
            target_ratio=target,
            tolerance=tolerance,
            most=most,
            num_workers=num_workers,
        )
    calibration = calibrated.info.calibration
    assert calibration is not None and calibration.interval is not None
    if as_json:
        tried = [{"threshold": each.threshold, "ratio": each.ratio} for each in calibrated.measured]
        print_json({"head": str(head), "threshold": calibrated.info.threshold, "tried": tried, **vars(calibration)})
        return
    low, high = calibration.interval
    typer.echo(
        f"{head}: threshold {calibrated.info.threshold:g}: the teacher writes {calibration.reached_ratio:.3%} of the "
        f"tokens (95% interval {low:.3%} to {high:.3%}, target {target:.3%}) on {calibration.num_questions:,} questions"
    )
