"""The doctor and the preflight on a real Ray cluster of two nodes, and the commands as they are run."""

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

import verl.trainer.constants_ppo  # noqa: F401 # isort: skip  (loads the plugin, and chooses verl's platform for good)
from relay_verl.cli.main import app
from relay_verl.errors import UserError
from relay_verl.models.ray_session import start_ray
from relay_verl.preflight import probe
from relay_verl.preflight.check import Check
from relay_verl.preflight.ray_checks import Cluster, check_memory, check_models_there, check_placement, check_workers
from relay_verl.preflight.registry import DEEP, MACHINE, RECIPE
from relay_verl.recipes.compose import compose
from relay_verl.run_config import RunConfig
from tests.helpers.errors import one_line


@pytest.fixture(scope="module")
def address() -> Iterator[str]:
    """A cluster of two nodes with 1 GPU each, one with 16 CPUs and one with 4."""
    from ray.cluster_utils import Cluster as RayCluster

    cluster = RayCluster(initialize_head=True, head_node_args={"num_cpus": 16, "num_gpus": 1})
    cluster.add_node(num_cpus=4, num_gpus=1)
    cluster.wait_for_nodes()
    yield cluster.address
    cluster.shutdown()


@pytest.fixture
def joined(address: str, monkeypatch: pytest.MonkeyPatch) -> Iterator[Any]:
    """Joins that cluster with a tiny recipe; gives the config and the cluster."""
    import ray

    monkeypatch.setenv("RAY_ADDRESS", address)
    monkeypatch.setenv("VERL_PLATFORM", "cpu")

    def join(*overrides: str) -> tuple[Any, Cluster]:
        config = compose("relay_tiny", overrides)
        cluster = Cluster(RunConfig(config))
        cluster.join(log_to_driver=False)
        return config, cluster

    yield join
    ray.shutdown()


def test_a_recipe_that_fits_and_nodes_that_can_take_part(joined: Any, tmp_path: Path) -> None:
    """Also: what the recipe says of starting a cluster does not stand in the way of joining one."""
    for name in ("student", "teacher"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "config.json").write_text("{}")
    config, cluster = joined(f"actor_rollout_ref.model.path={tmp_path}/student", "relay.teacher.path=/no/such/teacher")
    assert "2 GPU" not in check_placement(RunConfig(config), cluster), "the nodes are told apart"
    assert "on 2 node(s)" in check_workers(RunConfig(config), cluster)
    line = one_line(check_models_there, RunConfig(config), cluster)
    assert line.startswith("relay.teacher.path: /no/such/teacher does not exist on the Ray node ")
    config.relay.teacher.path = str(tmp_path / "teacher")
    check_memory(RunConfig(config), cluster)


def test_a_recipe_for_more_gpus_than_there_are(joined: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    from relay_verl.preflight import ray_checks as module

    monkeypatch.setattr(module, "SETTLE_S", 0.0)
    config, cluster = joined("trainer.n_gpus_per_node=2", "relay.teacher.num_replicas=3")
    line = one_line(check_placement, RunConfig(config), cluster)
    assert line.startswith("GPUs: the trainer finds no node with 2 GPU free; there are ")
    assert line.count(" 1 GPU") == 2
    assert "add 3" in line


def test_a_cluster_without_the_plugin(joined: Any) -> None:
    key = "+ray_kwargs.ray_init.runtime_env.env_vars.VERL_USE_EXTERNAL_PLUGINS"
    line = one_line(check_workers, *joined(f"{key}=none"))
    assert line.startswith("Ray node ")
    assert "does not load the plugin (VERL_USE_EXTERNAL_PLUGINS=none): pip install relay-verl==" in line


def test_a_node_that_does_not_answer_is_a_line_at_the_deadline(joined: Any) -> None:
    """Also a node that is gone: Ray says so at once."""
    _, cluster = joined()
    ids = [node["NodeID"] for node in cluster.alive]
    gone = ids[0][::-1]
    answers = probe.ask_nodes([ids[0], gone], [], deadline_s=0.01)
    assert answers[ids[0]]["error"].startswith("no worker answers within 0.01 s")
    assert answers[gone]["error"].startswith("no worker ")


def test_a_cluster_of_our_own_starts_without_imports_of_verl(monkeypatch: pytest.MonkeyPatch) -> None:
    """Each import of verl in a worker takes seconds in which nothing else of a start can proceed."""
    import ray
    from verl.workers.rollout.router import get_router_handle

    monkeypatch.setenv("RAY_ADDRESS", "local")
    monkeypatch.setenv("VERL_PLATFORM", "cpu")
    config = compose("relay_tiny")
    cluster = Cluster(RunConfig(config))
    cluster.join(log_to_driver=False)
    try:
        assert "on 1 node(s)" in check_workers(RunConfig(config), cluster)
        balancer = get_router_handle({"here": "a replica"})
        imported = balancer.__ray_call__.remote(lambda _: {"verl", "torch"} & set(__import__("sys").modules))
        assert ray.get(imported, timeout=120) == set()
        assert ray.get(balancer.acquire_server.remote(request_id="r"), timeout=120) == ("here", "a replica")
    finally:
        ray.shutdown()


class _InitCalledError(Exception):
    """Stands for the start of Ray."""


@pytest.mark.parametrize(
    "overrides", [[], ["transfer_queue.enable=true"], ["actor_rollout_ref.rollout.full_determinism=true"]]
)
def test_ray_is_started_as_verl_starts_it(monkeypatch: pytest.MonkeyPatch, overrides: list[str]) -> None:
    """verl's trainer skips its own start where Ray runs already, so ours must be the same to the last argument."""
    import ray
    from verl.trainer.main_ppo import run_ppo

    calls: list[dict[str, Any]] = []

    def init(**options: Any) -> None:
        calls.append(options)
        raise _InitCalledError

    monkeypatch.setattr(ray, "init", init)
    for name in ("RAY_ADDRESS", "VERL_FULL_DETERMINISM", "VLLM_BATCH_INVARIANT", "PYTHONHASHSEED"):
        monkeypatch.setenv(name, "")  # so that what the calls set is taken back
        monkeypatch.delenv(name)
    for start in (lambda config: start_ray(RunConfig(config)), lambda config: run_ppo(config, None)):
        with pytest.raises(_InitCalledError):
            start(compose("relay_tiny", overrides))
        for name in ("VERL_FULL_DETERMINISM", "VLLM_BATCH_INVARIANT", "PYTHONHASHSEED"):
            monkeypatch.delenv(name, raising=False)
    ours, verls = calls
    assert callable(ours["runtime_env"].pop("worker_process_setup_hook")), "sends the driver's environment"
    assert ours == verls
    assert ours["num_cpus"] == 64


def test_a_cluster_with_another_python(address: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Ray compares with what the head wrote down when it started; here that is written over, and Ray itself refuses."""
    from ray._common.usage import usage_constants
    from ray._private import ray_constants
    from ray._raylet import GcsClient

    gcs = GcsClient(address=address)
    key, space = usage_constants.CLUSTER_METADATA_KEY, ray_constants.KV_NAMESPACE_CLUSTER
    before = gcs.internal_kv_get(key, namespace=space)
    changed = json.loads(before) | {"python_version": "3.10.2", "ray_version": "2.9.0"}
    gcs.internal_kv_put(key, json.dumps(changed).encode(), True, namespace=space)
    monkeypatch.setenv("RAY_ADDRESS", address)
    try:
        line = one_line(start_ray, RunConfig(compose("relay_tiny")))
    finally:
        gcs.internal_kv_put(key, before, True, namespace=space)
    assert line.startswith(f"the Ray cluster at {address} runs Ray 2.9.0 on Python 3.10.2, and this process Ray ")
    assert "install Ray 2.9.0 in an environment with Python 3.10.2 here" in line


@pytest.fixture
def doctor(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Any:
    """Runs the command in this process, on a tiny world that is not there; gives its exit code and its lines."""
    monkeypatch.setenv("VERL_PLATFORM", "cpu")
    monkeypatch.setenv("RELAY_TINY_DIR", str(tmp_path))

    def run(*arguments: str) -> tuple[int, list[str]]:
        done = CliRunner().invoke(app, ["doctor", *arguments])
        return done.exit_code, done.stdout.splitlines()

    return run


def test_the_command_goes_through_all_and_counts(doctor: Any) -> None:
    code, lines = doctor("+recipe=relay_tiny", "data.train_batch_size=9", "trainer.logger=[swanlab]", "--no-ray")
    assert code == 1
    failed = [line.removeprefix("✗ ") for line in lines if line.startswith("✗")]
    assert failed == ["batch sizes", "training data", "validation data", "loggers", "student", "teacher"]
    assert lines[lines.index("✗ batch sizes") + 1].startswith("    data.train_batch_size=9 is not a multiple of ")
    assert "– micro-batches  batch sizes failed" in lines
    assert "– Ray  --no-ray" in lines
    marks = [sum(line.startswith(mark) for line in lines) for mark in "✓✗–"]
    assert lines[-1].startswith("{} passed, {} failed, {} skipped".format(*marks))


def test_the_command_as_json(doctor: Any) -> None:
    code, lines = doctor("+recipe=relay_tiny", "data.train_batch_size=9", "--no-ray", "--json")
    outcomes = json.loads("\n".join(lines))
    statuses = {check["name"]: check["status"] for check in outcomes["checks"]}
    assert (code, statuses["batch sizes"], statuses["Ray"]) == (1, "failed", "skipped")
    assert outcomes["failed"] == list(statuses.values()).count("failed")


def test_the_command_for_a_warm_up(doctor: Any, tmp_path: Path) -> None:
    code, lines = doctor("+recipe=warmup_tiny")
    assert code == 1
    assert "✓ composition  for verl.trainer.sft_trainer" in lines
    assert lines[lines.index("✗ student") + 1].startswith(f"    model.path: {tmp_path}/student does not exist")
    assert not any(line.endswith("Ray") for line in lines)


def test_the_command_for_a_recipe_that_is_not_there(doctor: Any) -> None:
    code, lines = doctor("+recipe=relay_1.7bb")
    assert code == 1
    assert "relay_1.7b_simple" in lines[lines.index("✗ composition") + 1]
    assert "– Ray  composition failed" in lines


def test_the_command_for_a_recipe_of_ones_own(doctor: Any, tmp_path: Path) -> None:
    (tmp_path / "recipe").mkdir()
    own = "# @package _global_\ndefaults:\n  - relay_tiny\nrelay:\n  max_calls: 5\n"
    (tmp_path / "recipe" / "mine.yaml").write_text(own)
    _, lines = doctor("+recipe=mine", "--config-dir", str(tmp_path), "--no-ray")
    assert f"✓ relay settings  learned, at most 5 calls of {tmp_path}/teacher" in lines


def test_the_command_without_a_recipe_starts_ray_and_passes() -> None:
    done = subprocess.run(
        [sys.executable, "-m", "relay_verl", "doctor"],
        env=os.environ | {"VERL_PLATFORM": "cpu", "RAY_ADDRESS": "local"},
        capture_output=True,
        text=True,
        timeout=200,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert "✓ Ray workers" in done.stdout
    assert "0 failed, 0 skipped" in done.stdout.splitlines()[-1]


@pytest.mark.parametrize("check", [*RECIPE, *DEEP, *MACHINE], ids=lambda check: check.name)
def test_each_check_reads_a_run_config(check: Check, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Checks of keys that verl alone reads take its config, the others a RunConfig; nothing that they name is there."""
    monkeypatch.setenv("RELAY_TINY_DIR", str(tmp_path))
    monkeypatch.setenv("VERL_PLATFORM", "cpu")
    run = RunConfig(compose("relay_tiny", [f"trainer.default_local_dir={tmp_path}/checkpoints"]))
    with suppress(UserError):
        check.run(run)
