"""Measurements of speed, which compare their ways in one run, and a simulation of many GPUs."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Annotated, Any

import typer

from relay_verl.cli.options import TINY_RECIPE, ConfigDir, Data, Overrides, TinyRecipe, compose_recipe, user_path
from relay_verl.cli.output import results_only
from relay_verl.errors import UserError
from relay_verl.policies import parse_policy
from relay_verl.run_config import RunConfig

NUM_GPUS = (8, 16, 32, 64, 128, 256, 512, 1024)
"""Clusters that are simulated where none are named."""
CONCURRENCIES = (1, 8, 32)
"""Requests at a time that `serve` measures where none are named."""
NUM_TRAJECTORIES = (500, 5000, 10000)
"""Responses at the same time where no number is given."""

app = typer.Typer(no_args_is_help=True, help="Measure speed; each compares its ways in one run.")


@app.command()
def rollout(
    recipe: TinyRecipe = None,
    config_dir: ConfigDir = None,
    student: Annotated[str | None, typer.Option(help="Student; the recipe's if not given.")] = None,
    teacher: Annotated[str | None, typer.Option(help="Teacher; the recipe's if not given.")] = None,
    num_responses: Annotated[int, typer.Option(min=1, help="Responses a round.")] = 128,
    rounds: Annotated[int, typer.Option(min=1, help="Counted rounds.")] = 5,
    policy: Annotated[str, typer.Option(help="Who calls, such as random_0.01.")] = "learned",
    overrides: Overrides = None,
) -> None:
    """Time training's responses: with calls, with all waiting for all at each call, without a teacher, and in vLLM's
    offline engine."""
    from relay_verl.bench.relay_speed import bench_rollout

    parse_policy(policy)
    run = compose_recipe(recipe, overrides, config_dir, TINY_RECIPE)
    student, teacher = _pair_of(run, student, teacher)
    rows = _questions(run, num_responses)
    with results_only():
        text = bench_rollout(run, student, teacher, rows, rounds, policy)
    typer.echo(text)


@app.command("eval")
def bench_eval_(
    student: Annotated[str, typer.Option(help="Student.")],
    teacher: Annotated[str, typer.Option(help="Teacher.")],
    recipe: TinyRecipe = None,
    config_dir: ConfigDir = None,
    benchmark: Annotated[str, typer.Option(help="Benchmark by name, or a file of your own.")] = "tiny",
    source: Annotated[Path | None, typer.Option(parser=user_path, help="Local copy of it.")] = None,
    limit: Annotated[int | None, typer.Option(min=1, help="Only its first questions.")] = None,
    rounds: Annotated[int, typer.Option(min=1, help="Counted rounds.")] = 5,
    overrides: Overrides = None,
) -> None:
    """Time `relay-verl eval` against one response at a time and against batches that wait for each other."""
    from relay_verl.bench.evaluation_speed import bench_eval
    from relay_verl.benchmarks.own import find_benchmarks
    from relay_verl.benchmarks.registry import load_benchmark
    from relay_verl.evaluation.suite import EvalSuite
    from relay_verl.preflight.commands import check_asked_model

    [chosen], own = find_benchmarks([benchmark])
    suite = EvalSuite({chosen.name: (chosen, load_benchmark(chosen, own.get(chosen.name, source), limit=limit))})
    for option, path in (("--student", student), ("--teacher", teacher)):
        check_asked_model(option, path)
    run = compose_recipe(recipe, overrides, config_dir, TINY_RECIPE)
    with results_only():
        text = bench_eval(run, student, teacher, suite, rounds)
    typer.echo(text)


@app.command("filter")
def bench_filter_(
    data: Data,
    recipe: TinyRecipe = None,
    config_dir: ConfigDir = None,
    rounds: Annotated[int, typer.Option(min=1, help="Counted rounds.")] = 3,
    overrides: Overrides = None,
) -> None:
    """Time `relay-verl filter` against the plainest script that does the same, and with early stopping."""
    from relay_verl.bench.filter_speed import bench_filter
    from relay_verl.data.source import Source
    from relay_verl.preflight.commands import check_filters_models

    run = compose_recipe(recipe, overrides, config_dir, TINY_RECIPE)
    check_filters_models(run.relay)
    with results_only():
        text = bench_filter(run, Source.scan(data), rounds)
    typer.echo(text)


@app.command("defer")
def bench_defer_(
    head: Annotated[str, typer.Option(help="Folder of the student's defer head.")],
    recipe: TinyRecipe = None,
    config_dir: ConfigDir = None,
    student: Annotated[str | None, typer.Option(help="Student; the recipe's if not given.")] = None,
    teacher: Annotated[str | None, typer.Option(help="Teacher; the recipe's if not given.")] = None,
    num_responses: Annotated[int, typer.Option(min=1, help="Responses a round.")] = 64,
    num_tokens: Annotated[int, typer.Option(min=2, help="Tokens of a response.")] = 64,
    rounds: Annotated[int, typer.Option(min=1, help="Counted rounds.")] = 7,
    overrides: Overrides = None,
) -> None:
    """Time a student with a defer head against one without, and a hop to the teacher."""
    from dataclasses import replace

    from relay_verl.bench.defer_speed import bench_defer

    run = compose_recipe(recipe, overrides, config_dir, TINY_RECIPE)
    student, teacher = _pair_of(run, student, teacher)
    rows = _questions(run, num_responses)
    with results_only():
        text = bench_defer(run, student, teacher, replace(run.relay.defer, head=head), rows, rounds, num_tokens)
    typer.echo(text)


@app.command("loop")
def bench_loop_(
    trajectories: Annotated[
        list[int] | None,
        typer.Option(
            min=1,
            help="Responses that are written at the same time; repeatable.",
            show_default=", ".join(map(str, NUM_TRAJECTORIES)),
        ),
    ] = None,
    rounds: Annotated[int, typer.Option(min=1, help="Counted rounds.")] = 5,
) -> None:
    """Time the decoder's own CPU a turn, with engines that answer at once; needs no model and no Ray."""
    from relay_verl.bench.loop_speed import bench_loop

    typer.echo(bench_loop(trajectories or NUM_TRAJECTORIES, rounds))


@app.command("serve")
def bench_serve_(
    url: Annotated[str, typer.Option(help="Address of `relay-verl serve`; its key is RELAY_SERVE_API_KEY.")],
    student_url: Annotated[
        str,
        typer.Option(help="Address of the student's own server behind it; its key is RELAY_STUDENT_API_KEY."),
    ],
    teacher_url: Annotated[
        str, typer.Option(help="Address of the teacher's own server; its key is RELAY_TEACHER_API_KEY.")
    ],
    tokenizer: Annotated[str, typer.Option(help="Student's folder or hub id: its tokenizer and relay.json are read.")],
    concurrency: Annotated[
        list[int] | None,
        typer.Option(min=1, help="Requests at a time; repeatable.", show_default=", ".join(map(str, CONCURRENCIES))),
    ] = None,
    num_requests: Annotated[int, typer.Option(min=1, help="Requests and questions of a round.")] = 64,
    input_len: Annotated[int, typer.Option(min=1, help="Tokens of a random prompt.")] = 32,
    output_len: Annotated[int, typer.Option(min=1, help="Tokens of the response to it.")] = 64,
    questions: Annotated[
        Path | None,
        typer.Option(parser=user_path, help="Questions to relay over.", show_default="the recipe's data.train_files"),
    ] = None,
    max_tokens: Annotated[int, typer.Option(min=1, help="Most tokens of the answer to a question.")] = 256,
    temperature: Annotated[float, typer.Option(min=0, help="Temperature of these answers; 0 is greedy.")] = 0.0,
    rounds: Annotated[int, typer.Option(min=1, help="Counted rounds.")] = 3,
    recipe: TinyRecipe = None,
    config_dir: ConfigDir = None,
    overrides: Overrides = None,
) -> None:
    """Measure a relay server against the bare servers behind it, and against relaying over texts; all run already."""
    from relay_verl.bench.served_pair_speed import ServedPairBench
    from relay_verl.bench.serving_speed import Load
    from relay_verl.checkpoints.relay_file import read_relay_file
    from relay_verl.models.tokenizers import read_tokenizer
    from relay_verl.preflight.rows import checked_rows

    read_tokenizer("--tokenizer", tokenizer)
    if questions is None:
        rows = _questions(compose_recipe(recipe, overrides, config_dir, TINY_RECIPE), num_requests)
    else:
        rows = _repeated(list(checked_rows(str(questions), f"--questions: {questions}", "prompt")), num_requests)
    bench = ServedPairBench(
        Load(tokenizer, num_requests, input_len, output_len),
        [list(row["prompt"]) for row in rows],
        read_relay_file(tokenizer).limits,
        max_tokens,
        temperature,
        concurrency or CONCURRENCIES,
        rounds,
    )
    with results_only():
        text = asyncio.run(bench.run(url, student_url, teacher_url))
    typer.echo(text)


@app.command("curves")
def bench_curves_(
    student: Annotated[str, typer.Option(help="Student.")],
    teacher: Annotated[str, typer.Option(help="Teacher.")],
    recipe: TinyRecipe = None,
    config_dir: ConfigDir = None,
    num_responses: Annotated[int, typer.Option(min=1, help="Responses of a batch.")] = 128,
    replicas: Annotated[int, typer.Option(min=1, help="Replicas of each model, at most.")] = 2,
    rounds: Annotated[int, typer.Option(min=1, help="Counted rounds.")] = 5,
    out: Annotated[Path, typer.Option(parser=user_path, help="YAML file to write.")] = Path("curves.yaml"),
    overrides: Overrides = None,
) -> None:
    """Measure the curves that `bench scale` takes, and compare what it simulates with real batches."""
    from relay_verl.bench.curves import bench_curves
    from relay_verl.preflight.commands import check_asked_model

    run = compose_recipe(recipe, overrides, config_dir, TINY_RECIPE)
    for option, path in (("--student", student), ("--teacher", teacher)):
        check_asked_model(option, path)
    rows = _questions(run, num_responses)
    with results_only():
        text = bench_curves(run, student, teacher, rows, most_replicas=replicas, rounds=rounds, out=out)
    typer.echo(text)


@app.command("scale")
def bench_scale_(
    curves: Annotated[
        Path | None,
        typer.Option(
            parser=user_path,
            help="YAML or JSON file of the engines' speeds and the responses.",
            show_default="assumed values for a 1.7B student and an 8B teacher",
        ),
    ] = None,
    gpus: Annotated[
        list[int] | None,
        typer.Option(min=2, help="GPUs of a cluster; repeatable.", show_default=", ".join(map(str, NUM_GPUS))),
    ] = None,
    out: Annotated[Path, typer.Option(parser=user_path, help="PNG or SVG file to write.")] = Path("scale.png"),
    num_responses: Annotated[
        int, typer.Option(min=1, help="Responses that each cluster writes at least, in as many batches as that takes.")
    ] = 8192,
    seed: Annotated[int, typer.Option(min=0, help="Seed of the responses.")] = 0,
) -> None:
    """Simulate rollouts on many GPUs, from speeds of single engines: teacher GPUs for student GPUs, and the barrier."""
    from relay_verl.bench.scale_picture import draw_scale
    from relay_verl.bench.scale_report import scale_to_markdown, study_scale
    from relay_verl.bench.scenario import ASSUMED, read_scenario

    if out.suffix not in (".png", ".svg"):
        raise UserError(f"--out: {out}; expected a name that ends with .png or .svg")
    study = study_scale(read_scenario(curves or ASSUMED), gpus or NUM_GPUS, num_responses=num_responses, seed=seed)
    draw_scale(study, out)
    typer.echo(f"{scale_to_markdown(study)}\n\n{out}")


def _pair_of(run: RunConfig, student: str | None, teacher: str | None) -> tuple[str, str]:
    """The models of a command line, or else of the recipe, that run here.

    Raises:
        UserError: one is missing, or the student is an endpoint.
    """
    from relay_verl.models.address import is_elsewhere
    from relay_verl.preflight.commands import check_asked_model

    student = student or run.student_path
    if not student:
        raise UserError("--student: the recipe names none while RELAY_STUDENT is not set; give one")
    if is_elsewhere(student):
        raise UserError(f"--student: {student} is an endpoint; what is compared needs a folder or a hub id")
    check_asked_model("--student", student)
    teacher = teacher or run.relay.only_teacher.path
    if teacher is None:
        raise UserError("--teacher: the recipe names none; give one")
    check_asked_model("--teacher", teacher)
    return student, teacher


def _questions(run: RunConfig, num: int) -> list[dict[str, Any]]:
    """So many rows of the recipe's training data."""
    import pandas as pd

    from relay_verl.preflight.data_checks import check_dataset

    check_dataset(run.data, "train_files")
    return _repeated(pd.read_parquet(Path(run.verl.data.train_files)).to_dict("records"), num)


def _repeated(questions: list[dict[str, Any]], num: int) -> list[dict[str, Any]]:
    """So many of them, evenly from the whole file, which may have a kind of question after the other; repeated where
    there are fewer.

    >>> [row["i"] for row in _repeated([{"i": i} for i in range(6)], 3)], len(_repeated([{}], 2))
    ([0, 2, 4], 2)
    """
    if num >= len(questions):
        return [questions[index % len(questions)] for index in range(num)]
    return [questions[index * len(questions) // num] for index in range(num)]
