"""What relaying plugs into: every combination that would silently leave out what was asked for ends with an error."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from omegaconf import OmegaConf

from relay_verl.errors import UserError
from relay_verl.preflight.check import CheckWarning
from relay_verl.preflight.wiring import (
    GROUPED_ESTIMATORS,
    check_agent_loop,
    check_dataset_class,
    check_groups,
    check_replay_buffer,
    check_reward_manager,
    check_teacher_tokens,
    check_trainer,
)
from relay_verl.run_config import RunConfig

CHECKS: tuple[Callable[[RunConfig], Any], ...] = (
    lambda run: check_trainer(run.verl),
    check_agent_loop,
    lambda run: check_reward_manager(run.verl),
    check_replay_buffer,
    check_groups,
    check_teacher_tokens,
    lambda run: check_dataset_class(run.verl),
)
AGENT = "actor_rollout_ref.rollout.agent"
SAMPLER = "trainer.v1.sampler.custom_sampler"


def config(**overrides: Any) -> Any:
    """What the recipes compose for these parts, with other values by dotted key."""
    node = OmegaConf.create(
        {
            "relay": {"teacher": {"path": "big"}, "filter": {"min_pass_rate": 0.5}},
            "data": {
                "custom_cls": {"path": "pkg://relay_verl.trainer.datasets", "name": "TeacherSolvableDataset"},
                "min_pass_rate": 0.5,
            },
            "distillation": {"enabled": False},
            "algorithm": {
                "adv_estimator": "grpo",
                "filter_groups": {"enable": False},
                "rollout_correction": {"bypass_mode": False, "rollout_is": None, "rollout_rs": None},
            },
            "actor_rollout_ref": {
                "actor": {"use_rollout_log_probs": False},
                "rollout": {
                    "n": 8,
                    "calculate_log_probs": True,
                    "agent": {
                        "default_agent_loop": "relay_agent",
                        "agent_loop_manager_class": "relay_verl.trainer.rollout_worker.RelayAgentLoopManager",
                    },
                },
            },
            "reward": {
                "reward_manager": {"source": "register", "name": "relay", "module": {"path": None}},
                "custom_reward_function": {"path": None, "name": "compute_score"},
                "reward_model": {"enable": False},
            },
            "trainer": {
                "use_v1": True,
                "v1": {
                    "trainer_mode": "sync",
                    "sampler": {
                        "custom_sampler": {
                            "path": "pkg://relay_verl.trainer.replay_buffer",
                            "name": "RelayReplayBuffer",
                        },
                        "sync_refill_failed_groups": False,
                    },
                },
            },
        }
    )
    for key, value in overrides.items():
        OmegaConf.update(node, key, value, force_add=True)
    return node


def outcomes(node: Any) -> list[Any]:
    run = RunConfig(node)
    return [check(run) for check in CHECKS]


def test_what_the_recipes_compose_passes_without_a_warning() -> None:
    assert not [text for text in outcomes(config()) if isinstance(text, CheckWarning)]


def test_a_config_without_these_parts_passes() -> None:
    bare = OmegaConf.create({"relay": {"teacher": {"path": "big"}}, "actor_rollout_ref": {"rollout": {"n": 8}}})
    assert not [text for text in outcomes(bare) if isinstance(text, CheckWarning)]


TEACHER_TOKENS = {"relay.train_on_teacher_tokens": True, "actor_rollout_ref.rollout.calculate_log_probs": False}
CORRECTION = "algorithm.rollout_correction"
ASYNC = {
    f"{SAMPLER}.path": "pkg://relay_verl.trainer.async_replay_buffer",
    f"{SAMPLER}.name": "AsyncRelayReplayBuffer",
}
REFUSED = [
    # overrides, key=value that the error begins with, what it also names
    ({"trainer.use_v1": False}, "trainer.use_v1=false", []),
    ({f"{AGENT}.agent_loop_manager_class": None}, f"{AGENT}.agent_loop_manager_class=None",
     ["relay_verl.trainer.rollout_worker.RelayAgentLoopManager", "relay.max_calls=0"]),
    ({f"{AGENT}.default_agent_loop": "single_turn_agent"}, f"{AGENT}.default_agent_loop=single_turn_agent",
     ["relay_agent"]),
    ({"reward.reward_manager.name": "naive"}, "reward.reward_manager.name=naive", ["relay"]),
    ({"reward.reward_manager.name": "rely"}, "reward.reward_manager.name=rely", ["cannot be loaded", "allowed: relay"]),
    ({"reward.reward_manager.source": "importlib", "reward.reward_manager.module.path": "/no/such.py"},
     "reward.reward_manager.name=relay", ["cannot be loaded"]),
    ({"reward.custom_reward_function.path": "mine.py"}, "reward.custom_reward_function.path=mine.py", ["relay.reward"]),
    ({"reward.reward_model.enable": True}, "reward.reward_model.enable=true", []),
    ({"algorithm.filter_groups.enable": True, "relay.reward.scenario_scope": "batch"},
     "algorithm.filter_groups.enable=true", ["relay.reward.scenario_scope=batch"]),
    ({"algorithm.filter_groups.enable": True}, "algorithm.filter_groups.enable=true", []),
    ({"algorithm.filter_groups.enable": True, "relay.reward.scenario_scope": "batch", f"{SAMPLER}.path": None},
     "algorithm.filter_groups.enable=true", ["relay.reward.scenario_scope=batch"]),
    ({"relay.reward.scenario_scope": "batch", f"{SAMPLER}.path": None}, f"{SAMPLER}.path=None",
     ["relay.reward.scenario_scope=batch", "RelayReplayBuffer"]),
    ({"relay.on_teacher_failure": "fail", f"{SAMPLER}.path": None}, f"{SAMPLER}.path=None",
     ["relay.on_teacher_failure=fail"]),
    ({f"{SAMPLER}.name": "RelayReplayBufer"},
     f"{SAMPLER}.path=pkg://relay_verl.trainer.replay_buffer name=RelayReplayBufer",
     ["cannot be loaded"]),
    ({"trainer.v1.sampler.sync_refill_failed_groups": True}, "trainer.v1.sampler.sync_refill_failed_groups=true", []),
    ({"trainer.v1.trainer_mode": "colocate_async"}, "trainer.v1.trainer_mode=colocate_async",
     ["RelayReplayBuffer", "trainer.v1.trainer_mode=sync", "+relay=colocate_async"]),
    (ASYNC, "trainer.v1.trainer_mode=sync", ["AsyncRelayReplayBuffer", "colocate_async"]),
    ({"rollout": {"nnodes": 1, "n_gpus_per_node": 8}}, "rollout: ", ["verl.trainer.main_ppo", "+relay=separate_async"]),
    ({"actor_rollout_ref.rollout.n": 1}, "actor_rollout_ref.rollout.n=1", ["relay.reward.kind=difficulty_aware"]),
    ({"relay.train_on_teacher_tokens": True}, "relay.train_on_teacher_tokens=true",
     ["actor_rollout_ref.rollout.calculate_log_probs=false"]),
    ({**TEACHER_TOKENS, f"{CORRECTION}.bypass_mode": True}, "relay.train_on_teacher_tokens=true",
     [f"{CORRECTION}.bypass_mode=true"]),
    ({**TEACHER_TOKENS, f"{CORRECTION}.rollout_is": "token"}, "relay.train_on_teacher_tokens=true",
     [f"{CORRECTION}.rollout_is=token", f"{CORRECTION}.rollout_is=null"]),
    ({**TEACHER_TOKENS, f"{CORRECTION}.rollout_rs": "seq_sum_k1"}, "relay.train_on_teacher_tokens=true",
     [f"{CORRECTION}.rollout_rs=seq_sum_k1"]),
    ({**TEACHER_TOKENS, "actor_rollout_ref.actor.use_rollout_log_probs": True}, "relay.train_on_teacher_tokens=true",
     ["actor_rollout_ref.actor.use_rollout_log_probs=true"]),
]  # fmt: skip


@pytest.mark.parametrize(("overrides", "begins", "names"), REFUSED, ids=[f"{b}-{i}" for i, (_, b, _) in
                                                                         enumerate(REFUSED)])  # fmt: skip
def test_what_would_be_left_out_silently_is_refused(overrides: dict, begins: str, names: list[str]) -> None:
    with pytest.raises(UserError) as error:
        outcomes(config(**overrides))
    line = str(error.value)
    assert line.startswith(begins)
    assert "\n" not in line
    assert all(name in line for name in names), line


ACCEPTED = [
    # overrides, how many warnings, why
    (TEACHER_TOKENS, 0, "verl gets no log-probabilities of the rollout"),
    ({f"{AGENT}.agent_loop_manager_class": None, "relay.max_calls": 0}, 0, "there are no calls"),
    ({f"{SAMPLER}.path": None, "trainer.v1.trainer_mode": "separate_async"}, 1, "verl's own buffer in its own modes"),
    ({**ASYNC, "trainer.v1.trainer_mode": "colocate_async"}, 0, "our buffer for those modes"),
    ({**ASYNC, "trainer.v1.trainer_mode": "separate_async"}, 0, "our buffer for those modes with GPUs of their own"),
    ({f"{SAMPLER}.path": None, f"{SAMPLER}.name": None}, 1, "verl's own buffer has no relay metrics"),
    ({f"{SAMPLER}.path": None, "algorithm.filter_groups.enable": True}, 1, "verl's own buffer filters"),
    ({"actor_rollout_ref.rollout.n": 1, "relay.reward.kind": "simple"}, 1, "nothing to compare"),
    ({"algorithm.adv_estimator": "gae"}, 1, "verl's default does not compare"),
    ({"algorithm.adv_estimator": "rloo"}, 0, "compares, too"),
    ({"data.custom_cls.name": "RLHFDataset"}, 1, "the threshold may be left out"),
    ({"data.custom_cls.name": "RLHFDataset", "data.min_pass_rate": 0.0}, 0, "no threshold"),
]


@pytest.mark.parametrize(("overrides", "num_warnings", "why"), ACCEPTED, ids=[why for *_, why in ACCEPTED])
def test_what_is_accepted(overrides: dict, num_warnings: int, why: str) -> None:
    warnings = [text for text in outcomes(config(**overrides)) if isinstance(text, CheckWarning)]
    assert len(warnings) == num_warnings, why


MINE = """
from relay_verl.trainer.replay_buffer import RelayReplayBuffer
from relay_verl.trainer.reward_manager import RelayRewardManager
from relay_verl.trainer.rollout_worker import RelayAgentLoopManager

class Buffer(RelayReplayBuffer): pass
class Manager(RelayRewardManager): pass
class Loop(RelayAgentLoopManager): pass
"""


def test_subclasses_of_ours_are_ours(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "my_parts.py").write_text(MINE)
    monkeypatch.syspath_prepend(tmp_path)
    mine = config(
        **{
            f"{AGENT}.agent_loop_manager_class": "my_parts.Loop",
            f"{SAMPLER}.path": "pkg://my_parts",
            f"{SAMPLER}.name": "Buffer",
            "reward.reward_manager.source": "importlib",
            "reward.reward_manager.name": "Manager",
            "reward.reward_manager.module.path": "pkg://my_parts",
        }
    )
    assert not [text for text in outcomes(mine) if isinstance(text, CheckWarning)]
    with pytest.raises(UserError, match=r"agent_loop_manager_class=my_parts\.Buffer"):
        check_agent_loop(RunConfig(config(**{f"{AGENT}.agent_loop_manager_class": "my_parts.Buffer"})))


def test_the_estimators_that_compare_are_verls() -> None:
    from verl.trainer.ppo.core_algos import ADV_ESTIMATOR_REGISTRY

    assert set(GROUPED_ESTIMATORS) <= set(ADV_ESTIMATOR_REGISTRY)
