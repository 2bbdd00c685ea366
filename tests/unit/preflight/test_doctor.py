"""What the doctor adds to the preflight: how checks hang together, room on nodes, a node's verdict, this machine."""

import socket
from pathlib import Path
from typing import Any

import pytest
from omegaconf import OmegaConf

from relay_verl.config import read_settings
from relay_verl.errors import UserError
from relay_verl.models.ray_session import explain_ray_error, start_ray
from relay_verl.preflight import install_checks as installation
from relay_verl.preflight import model_checks as models
from relay_verl.preflight.check import Check, CheckWarning, Doctor, Outcome, Status, demand
from relay_verl.preflight.config_checks import check_replica_gpus
from relay_verl.preflight.loggers import check_loggers
from relay_verl.preflight.machine import check_ports
from relay_verl.preflight.placement import FreeNode, check_room, replica_groups
from relay_verl.preflight.probe import fault_of
from relay_verl.preflight.registry import CLUSTER, INSTALLATION, MACHINE, RECIPE, WARMUP, WARMUP_MACHINE
from relay_verl.run_config import RunConfig
from relay_verl.versions import INSTALL, TESTED, is_tested
from tests.helpers.errors import one_line

ROOT = Path(__file__).parents[3]


# ---- how checks hang together ----


def fail(*_: Any) -> str:
    raise UserError("a=1: wrong; set a=2")


def test_an_examination_goes_on_and_names_the_failure_at_the_bottom() -> None:
    def broken() -> None:
        raise KeyError("x")

    checks = [
        Check("a", fail),
        Check("b", lambda: pytest.fail("it was to be skipped"), after=("a",)),
        Check("c", lambda: pytest.fail("it was to be skipped"), after=("b",)),
        Check("d", lambda: "fine"),
        Check("e", lambda: CheckWarning("perhaps"), after=("d",)),
        Check("f", lambda: None, after=("e", "not run")),
        Check("g", broken),
    ]
    assert list(Doctor().run(checks)) == [
        Outcome("a", Status.FAILED, "a=1: wrong; set a=2"),
        Outcome("b", Status.SKIPPED, "a failed"),
        Outcome("c", Status.SKIPPED, "a failed"),
        Outcome("d", Status.PASSED, "fine"),
        Outcome("e", Status.DOUBTFUL, "perhaps"),
        Outcome("f", Status.PASSED, ""),
        Outcome("g", Status.FAILED, "KeyError: 'x'"),
    ]


def test_training_stops_at_the_first_failure_and_says_doubts(capsys: pytest.CaptureFixture[str]) -> None:
    checks = [Check("a", lambda: CheckWarning("perhaps")), Check("b", fail), Check("c", lambda: pytest.fail("went on"))]
    assert one_line(demand, checks) == "a=1: wrong; set a=2"
    assert capsys.readouterr().err == "relay_verl: perhaps\n"


def test_every_check_comes_after_those_it_needs() -> None:
    for lists in ((INSTALLATION, RECIPE, MACHINE, CLUSTER), (INSTALLATION, WARMUP, WARMUP_MACHINE)):
        seen: list[str] = []
        for check in (check for checks in lists for check in checks):
            assert set(check.after) <= set(seen), check.name
            assert check.name not in seen
            seen.append(check.name)


# ---- versions ----


VERSIONS = [
    # package, installed, tested with, whether it counts as tested, why
    ("torch", "2.13.0+cpu", "2.13.0", True, "a local build"),
    ("torch", "2.13.4", "2.13.0", True, "a later patch"),
    ("torch", "2.1.3", "2.13.0", False, "a prefix is not a version"),
    ("ray", "2.61.0", "2.60.0", False, "another minor number"),
    ("verl", "0.9.1", "0.9.1", True, "the same"),
    ("verl", "0.9.2", "0.9.1", False, "we hook into its inside"),
]


@pytest.mark.parametrize(("package", "installed", "tested", "wanted", "why"), VERSIONS)
def test_is_tested(package: str, installed: str, tested: str, wanted: bool, why: str) -> None:
    assert is_tested(package, installed, tested) is wanted, why


def test_the_tested_versions_are_those_of_the_cpu_install() -> None:
    lines = (ROOT / ".ci" / "requirements-cpu.txt").read_text().splitlines()
    pinned = dict(line.split("==") for line in lines if "==" in line)
    pinned["torch"] = next(
        line.removeprefix("torch=") for line in (ROOT / ".ci" / "setup").read_text().splitlines() if "torch=" in line
    )
    assert TESTED["cpu"] == {name: pinned[name] for name in TESTED["cpu"]}


def test_a_package_of_another_version_is_a_doubt_and_a_missing_one_a_failure(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("VERL_PLATFORM", "cpu")
    assert not isinstance(installation.check_packages(), CheckWarning)
    monkeypatch.setitem(TESTED["cpu"], "ray", "1.0.0")
    text = installation.check_packages()
    assert isinstance(text, CheckWarning)
    assert "(tested: 1.0.0)" in text
    assert "verl " not in text
    monkeypatch.setitem(TESTED["cpu"], "no-such-package", "1.0")
    line = one_line(installation.check_packages)
    assert line == f"no-such-package: not installed; {INSTALL['cpu']}"


LOGGERS = [
    # trainer.logger, the line (None: passes), why
    (["console", "file"], None, "verl's own"),
    ("console", None, "one by itself"),
    ([], None, "none"),
    (None, "trainer.logger=null: ", "verl reads a list"),
    (["console", "tensorbord"], "trainer.logger: 'tensorbord': allowed: ", "misspelt"),
    (["swanlab"], "trainer.logger: 'swanlab' needs the package swanlab: pip install swanlab", "not installed"),
    (["vemlp_wandb"], "trainer.logger: 'vemlp_wandb' needs the package volcengine_ml_platform: ", "another name"),
]


@pytest.mark.parametrize(("logger", "line", "why"), LOGGERS)
def test_loggers(logger: Any, line: str | None, why: str) -> None:
    config = OmegaConf.create({"trainer": {"logger": logger, "project_name": "p", "experiment_name": "e"}})
    if line is None:
        check_loggers(config)
    else:
        assert one_line(check_loggers, config).startswith(line), why


# ---- room on the nodes ----


def recipe(nnodes: int, gpus: int, replicas: int = 0, tensor_parallel: int = 1) -> Any:
    teacher = {"path": "big", "num_replicas": replicas, "tensor_parallel_size": tensor_parallel}
    return OmegaConf.create(
        {
            "trainer": {"nnodes": nnodes, "n_gpus_per_node": gpus},
            "relay": {"teacher": teacher} if replicas else {"max_calls": 0},
        }
    )


ROOM = [
    # config, GPUs free on each node, parts of the line (None: fits), why
    (recipe(1, 1, 1), [2], None, "the tiny world"),
    (recipe(1, 4, 2), [8], None, "one machine"),
    (recipe(2, 4), [8], None, "two groups of the trainer share a node that is large enough"),
    (recipe(2, 4, 1, 8), [8], ["the teacher", "4 GPU free", "add 8"], "all is the trainer's"),
    (recipe(1, 8), [4, 4], ["the trainer finds no node with 8 GPU", "more GPUs each"], "no node has 8"),
    (recipe(1, 4, 1, 4), [4, 2, 2], ["the teacher", "more GPUs each"], "4 are left, on two nodes"),
    (recipe(1, 2, 1, 4), [4, 2], None, "a replica larger than the trainer's nodes spans two"),
    (recipe(3, 8, 2), [8, 8], ["add 10"], "26 of 16"),
    (recipe(1, 1, 1), [], ["finds no node"], "no node at all"),
]


@pytest.mark.parametrize(("config", "free", "parts", "why"), ROOM, ids=[why for *_, why in ROOM])
def test_room(config: Any, free: list[int], parts: list[str] | None, why: str) -> None:
    nodes = [FreeNode(f"{index:02}", f"10.0.0.{index}", gpus) for index, gpus in enumerate(free)]
    if parts is None:
        assert "needed: the trainer" in check_room(RunConfig(config), nodes)
    else:
        line = one_line(check_room, RunConfig(config), nodes)
        for part in parts:
            assert part in line


OWN_NODES = [
    # resources of two nodes with a GPU each, parts of the line or None, why
    (("trainer", "teacher"), None, "each has its own"),
    (("teacher", "teacher"), None, "one of them is left for the trainer"),
    (("trainer", "trainer"), ["the teacher finds no node", "resource 'teacher'", "--resources"], "no such node"),
]


@pytest.mark.parametrize(("resources", "parts", "why"), OWN_NODES)
def test_room_on_nodes_of_the_teachers_own(resources: tuple[str, str], parts: list[str] | None, why: str) -> None:
    config = recipe(1, 1, 1)
    config.relay.teacher.node_resource = "teacher"
    nodes = [FreeNode(f"{n:02}", f"10.0.0.{n}", 1, frozenset({"CPU", name})) for n, name in enumerate(resources)]
    if parts is None:
        assert "needed: " in check_room(RunConfig(config), nodes), why
    else:
        line = one_line(check_room, RunConfig(config), nodes)
        assert [part for part in parts if part not in line] == [], why


def test_the_groups_of_a_replica_are_as_verl_makes_them() -> None:
    """`relay_verl.models.launch.start_replicas` gives verl no more GPUs a node than the trainer has."""
    teacher = read_settings({"teacher": {"path": "b", "num_replicas": 2, "tensor_parallel_size": 4}}).teacher
    assert [group.num_gpus for group in replica_groups(teacher, 8)] == [4, 4]
    assert [group.num_gpus for group in replica_groups(teacher, 2)] == [2, 2, 2, 2]


def test_a_replica_that_does_not_split_over_nodes() -> None:
    check_replica_gpus(RunConfig(recipe(1, 2, 1, 4)))
    line = one_line(check_replica_gpus, RunConfig(recipe(1, 4, 1, 6)))
    assert line.startswith("relay.teacher.tensor_parallel_size=6 ")


# ---- a node's verdict ----


OURS = {"python": "3.11.9", "VERL_PLATFORM": "", "relay-verl": "0.1.0", "verl": "0.9.1", "transformers": "5.10.4"}
GOOD = {**OURS, "vllm": "0.24.0", "verl_error": "", "plugin_error": "", "missing": [], "memory": None, "shm": None}
VERDICTS = [
    # what the node says otherwise, has GPUs, part of the line (None: it can take part), why
    ({}, True, None, "the same"),
    ({"vllm": None}, False, None, "a head without GPUs needs no vLLM"),
    ({"vllm": None}, True, "it has GPUs and no vLLM: pip install", "no engine could start"),
    ({"relay-verl": None}, True, None, "shipped with the runtime environment, and loaded"),
    ({"relay-verl": "0.0.9"}, True, "relay-verl 0.0.9, here 0.1.0: pip install relay-verl==0.1.0", "another version"),
    ({"verl": "0.9.2"}, True, "verl 0.9.2, here 0.9.1: ", "another verl"),
    ({"python": "3.12.1"}, True, "Python 3.12.1, here 3.11.9: ", "another Python"),
    ({"verl": None, "verl_error": "ModuleNotFoundError: x"}, True, "verl is not installed there", "a bare node"),
    ({"verl_error": "ImportError: libcuda"}, True, "verl cannot be imported there: ImportError: libcuda", "broken"),
    (
        {"relay-verl": None, "plugin_error": "ModuleNotFoundError: No module named 'relay_verl'"},
        True,
        "does not load the plugin (ModuleNotFoundError: No module named 'relay_verl'): pip install relay-verl==0.1.0",
        "without the plugin",
    ),
    ({"VERL_PLATFORM": "cpu"}, True, "VERL_PLATFORM='cpu' in its workers, here ''", "a shell's left-over"),
    ({"modules": {"theirs": ""}}, True, None, "another package's reward is there"),
    (
        {"modules": {"theirs": "ModuleNotFoundError: x"}},
        True,
        "theirs cannot be imported there (ModuleNotFoundError: x)",
        "another package is missing",
    ),
    ({"error": "no worker answers within 3 s"}, True, "no worker answers within 3 s", "no answer"),
]


@pytest.mark.parametrize(("says", "has_gpus", "part", "why"), VERDICTS, ids=[why for *_, why in VERDICTS])
def test_a_nodes_verdict(says: dict[str, Any], has_gpus: bool, part: str | None, why: str) -> None:
    fault = fault_of({**GOOD, **says}, OURS, has_gpus=has_gpus)
    assert "\n" not in fault
    assert fault == "" if part is None else part in fault


# ---- Ray's address ----


def test_an_address_where_nothing_answers(monkeypatch: pytest.MonkeyPatch) -> None:
    from relay_verl.recipes.compose import compose

    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))  # bound and not listening: a connection is refused
        address = f"127.0.0.1:{taken.getsockname()[1]}"
        monkeypatch.setenv("RAY_ADDRESS", address)
        line = one_line(start_ray, RunConfig(compose("relay_tiny")))
    assert line.startswith(f"RAY_ADDRESS: no Ray cluster answers at {address} (Connection refused)")


def test_a_cluster_that_is_there_while_the_recipe_would_start_one() -> None:
    error = ValueError("When connecting to an existing cluster, num_cpus and num_gpus must not be provided.")
    assert "RAY_ADDRESS=auto" in explain_ray_error(error, None)
    assert explain_ray_error(RuntimeError("a\nb"), "h:1") == "the Ray cluster at h:1 cannot be joined: a b"


# ---- this machine ----


def test_a_fixed_port_that_is_taken() -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]

        def config(**options: Any) -> Any:
            return OmegaConf.create({"ray_kwargs": {"ray_init": options}})

        line = one_line(check_ports, config(dashboard_port=port))
        assert line.startswith(f"ray_kwargs.ray_init.dashboard_port={port}: Address already in use")
        assert check_ports(config(dashboard_port=port, include_dashboard=False)) == "none is fixed"
        assert check_ports(config(num_cpus=1)) == "none is fixed"
    assert check_ports(config(dashboard_port=port)) == str(port)


def test_a_model_on_the_hub(monkeypatch: pytest.MonkeyPatch, tmp_path: Path, fake_vllm: Any) -> None:
    """A real client of the hub against a server on loopback."""
    from huggingface_hub import constants

    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path))
    monkeypatch.setattr(constants, "ENDPOINT", fake_vllm.url.removesuffix("/v1"))
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    line = one_line(models.check_model, "k", "me/mine")
    assert line.startswith("k: me/mine is not in the hub's cache, and HF_HUB_OFFLINE is set")
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", False)
    fake_vllm.stop()
    assert "does not answer for it (" in one_line(models.check_model, "k", "me/mine")
    cached = tmp_path / "models--me--mine"
    (cached / "snapshots" / "abc").mkdir(parents=True)
    (cached / "snapshots" / "abc" / "config.json").write_text("{}")
    (cached / "refs").mkdir()
    (cached / "refs" / "main").write_text("abc")
    assert models.check_model("k", "me/mine") == "me/mine, in the hub's cache"
    (tmp_path / "config.json").write_text("{}")
    assert models.check_model("k", str(tmp_path)) == str(tmp_path)
