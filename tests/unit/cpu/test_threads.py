"""How many threads the processes of a CPU recipe get."""

from pathlib import Path
from typing import Any

import pytest
from omegaconf import OmegaConf
from omegaconf.errors import OmegaConfBaseException

from relay_verl.config import TeacherSettings
from relay_verl.cpu import threads
from relay_verl.models import ray_session as cluster
from relay_verl.models.ray_session import ray_options
from relay_verl.run_config import RunConfig

CPU = Path(__file__).parents[3] / "recipes" / "relay" / "cpu.yaml"
CORES = 8


@pytest.fixture(autouse=True)
def machine(monkeypatch: pytest.MonkeyPatch) -> None:
    """A machine of 8 cores."""
    monkeypatch.setattr(threads, "num_cores", lambda: CORES)
    threads.register_resolver()


def recipe(relay: dict[str, Any] | None = None, overrides: dict[str, Any] | None = None) -> Any:
    """The CPU part of the recipes, what it refers to, and overrides by dotted key."""
    config = OmegaConf.merge(
        OmegaConf.load(CPU),
        {
            "relay": {"teacher": {"path": "teacher"}} if relay is None else relay,
            "actor_rollout_ref": {"rollout": {"full_determinism": False, "seed": 0}},
            "reward": {"reward_model": {"enable": False}},
            "transfer_queue": {"enable": True},
            "trainer": {"logger": ["console"]},
        },
    )
    for key, value in (overrides or {}).items():
        OmegaConf.update(config, key, value)
    return config


def variables(config: Any) -> dict[str, str]:
    """The environment that Ray gives its workers, as (trainer's, engines') threads."""
    return ray_options(config)["runtime_env"]["env_vars"]  # type: ignore[no-any-return]


ENV = "ray_kwargs.ray_init.runtime_env.env_vars"
ENTRY = {"path": "a teacher"}
TRAINING = [
    # relay node, overrides, trainer's threads, engines' threads, why
    (None, {}, "8", "4", "student and teacher write together"),
    ({"max_calls": 0}, {}, "8", "8", "plain GRPO has no teacher"),
    ({"teacher": {"base_url": "http://far/v1"}}, {}, "8", "8", "an endpoint computes elsewhere"),
    ({"teacher": {"path": "t", "node_resource": "other"}}, {}, "8", "8", "so does a teacher with nodes of its own"),
    ({"teacher": {"path": "t", "num_replicas": 3}}, {}, "8", "2", "each replica is an engine"),
    ({"teachers": [ENTRY | {"name": "one"}, ENTRY | {"name": "two"}]}, {}, "8", "2", "8 cores for three, whole ones"),
    (None, {"trainer.n_gpus_per_node": 2}, "4", "2", "two ranks, each with an engine"),
    (None, {"trainer.n_gpus_per_node": 100}, "1", "1", "never none"),
    (None, {"actor_rollout_ref.rollout.full_determinism": True}, "1", "1", "the same sums on any machine"),
    (None, {f"{ENV}.OMP_NUM_THREADS": "3"}, "3", "4", "what the user says stays"),
    (None, {f"{ENV}.RELAY_ENGINE_THREADS": "3"}, "8", "3", "the same"),
    (None, {f"{ENV}.OMP_NUM_THREADS": 3, f"{ENV}.RELAY_ENGINE_THREADS": 2}, "3", "2", "a number, as Hydra reads it"),
]


@pytest.mark.parametrize(("relay", "overrides", "trainer", "engines", "why"), TRAINING)
def test_threads_in_training(
    relay: dict[str, Any] | None,
    overrides: dict[str, Any],
    trainer: str,
    engines: str,
    why: str,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    for name in ("VERL_FULL_DETERMINISM", "VLLM_BATCH_INVARIANT", "PYTHONHASHSEED"):
        monkeypatch.setenv(name, "")  # what `ray_options` sets ends with the test
    found = variables(recipe(relay, overrides))
    assert (found["OMP_NUM_THREADS"], found["RELAY_ENGINE_THREADS"]) == (trainer, engines), why
    assert found["OMP_WAIT_POLICY"] == "PASSIVE"
    assert all(isinstance(value, str) for value in found.values()), "Ray takes strings alone"


@pytest.mark.parametrize(
    ("num_engines", "is_deterministic", "expected"),
    [(1, False, "8"), (2, False, "4"), (3, False, "2"), (99, False, "1"), (0, False, "8"), (1, True, "1")],
)
def test_a_command_shares_the_cores_among_the_engines_that_it_starts(
    num_engines: int, is_deterministic: bool, expected: str
) -> None:
    config = recipe()
    threads.share_cores(config, num_engines, is_deterministic=is_deterministic)
    assert variables(config)["RELAY_ENGINE_THREADS"] == expected


def test_a_command_keeps_the_number_that_is_given() -> None:
    config = recipe(overrides={f"{ENV}.RELAY_ENGINE_THREADS": "3"})
    threads.share_cores(config, 1)
    assert variables(config)["RELAY_ENGINE_THREADS"] == "3"


def test_a_recipe_for_gpus_stays_as_it_is() -> None:
    config = OmegaConf.create({"ray_kwargs": {"ray_init": {"num_cpus": None}}})
    before = config.copy()
    threads.share_cores(config, 1)
    assert config == before


def test_an_engine_starts_with_its_own_number() -> None:
    given = {"OMP_NUM_THREADS": "8", "RELAY_ENGINE_THREADS": "4", "OTHER": "x"}
    assert threads.engine_environment(given) == given | {"OMP_NUM_THREADS": "4"}
    assert threads.engine_environment({"OMP_NUM_THREADS": "8"}) == {"OMP_NUM_THREADS": "8"}


def test_who_else_asks_is_refused() -> None:
    config = OmegaConf.create({"key": "${relay_threads:others}"})
    with pytest.raises(OmegaConfBaseException, match="expected trainer or engines"):
        _ = config.key


@pytest.mark.parametrize(
    ("turns", "expected"),
    [
        ([["student"]], "8"),
        ([["student"], ["teacher"]], "8"),  # one after the other
        ([["student"], ["student", "teacher"]], "4"),
        ([["student", "two"]], "2"),
        ([["student", "far"]], "8"),
        (None, "2"),  # all three replicas, as far as anyone says
    ],
)
def test_an_evaluation_gives_an_engine_that_is_alone_all_cores(
    turns: list[list[str]] | None, expected: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    started: list[Any] = []
    monkeypatch.setattr(cluster, "start_ray", lambda run, **_: started.append(variables(run.verl)))
    models = {
        "student": TeacherSettings(path="s"),
        "teacher": TeacherSettings(path="t"),
        "two": TeacherSettings(path="t", num_replicas=2),
        "far": TeacherSettings(base_url="http://far/v1"),
    }
    chosen = None if turns is None else [[models[name] for name in turn] for turn in turns]
    with cluster.ray_cluster(RunConfig(recipe()), num_gpus=3, turns=chosen):
        assert started[0]["RELAY_ENGINE_THREADS"] == expected
