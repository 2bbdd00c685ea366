"""Whether the parts of verl that relaying plugs into are those that a recipe names, and take what else is set.

Each of these combinations would run, and silently leave out what was asked for.
"""

from __future__ import annotations

from typing import Any

from omegaconf import OmegaConf

from relay_verl.errors import UserError, as_user_error, first_line
from relay_verl.preflight.check import CheckWarning
from relay_verl.rewards import find_reward
from relay_verl.run_config import RunConfig, VerlConfig

MANAGER = "relay_verl.trainer.rollout_worker.RelayAgentLoopManager"
AGENT = "relay_agent"
SAMPLER, SAMPLER_PATH = "RelayReplayBuffer", "pkg://relay_verl.trainer.replay_buffer"
ASYNC_SAMPLER, ASYNC_SAMPLER_PATH = "AsyncRelayReplayBuffer", "pkg://relay_verl.trainer.async_replay_buffer"
GROUPED_ESTIMATORS = (
    *("grpo", "grpo_vectorized", "grpo_passk", "gdpo", "rloo", "rloo_vectorized", "opo", "gpg"),
    *("reinforce_plus_plus_baseline", "optimal_token_baseline", "tir_optimal_token_baseline"),
)
"""verl's advantage estimators that compare the samples of a query."""


def check_trainer(config: VerlConfig) -> str:
    """verl's V1 trainer runs."""
    if OmegaConf.select(config, "trainer.use_v1") is False:
        raise UserError("trainer.use_v1=false: relaying needs verl's V1 trainer: leave it true")
    # verl.experimental's one_step_off_policy and fully_async_policy have this node in their configs, the V1 trainer not
    if "rollout" in config:
        raise UserError(
            "rollout: the trainers of verl.experimental (one_step_off_policy, fully_async_policy) have no place for "
            "relayed groups: start verl.trainer.main_ppo with +relay=colocate_async or +relay=separate_async"
        )
    return "V1"


def check_agent_loop(run: RunConfig) -> str:
    """Our manager starts the teacher, and our loop asks it."""
    agent = OmegaConf.select(run.verl, "actor_rollout_ref.rollout.agent")
    if agent is None or not run.relay.needs_teacher:
        return "any, without calls"
    key = "actor_rollout_ref.rollout.agent"
    manager, loop = agent.get("agent_loop_manager_class"), agent.get("default_agent_loop")
    if manager != MANAGER and not _is_our_manager(f"{key}.agent_loop_manager_class", manager):
        raise UserError(
            f"{key}.agent_loop_manager_class={manager}: no teacher would be started and no call served: set {MANAGER} "
            "or a subclass, or relay.max_calls=0"
        )
    if loop != AGENT:
        raise UserError(f"{key}.default_agent_loop={loop}: no call would be served: set {AGENT}, or relay.max_calls=0")
    return AGENT


def _is_our_manager(key: str, name: str | None) -> bool:
    if name is None:
        return False
    from verl.utils.import_utils import load_class_from_fqn

    from relay_verl.trainer.rollout_worker import RelayAgentLoopManager

    return _loads_as(f"{key}={name}", lambda: load_class_from_fqn(name, "AgentLoopManager"), RelayAgentLoopManager)


def check_reward_manager(config: VerlConfig) -> str:
    """The reward manager grades and rewards groups, and no other reward is asked for."""
    reward = config.get("reward")
    manager = OmegaConf.select(config, "reward.reward_manager")
    if reward is None or manager is None:
        return "not given"
    is_relay = manager.get("source", "register") == "register" and manager.name == "relay"
    if not is_relay and not _is_our_reward_manager(config, manager):
        raise UserError(
            f"reward.reward_manager.name={manager.name}: it does not reward groups as relay.reward says: set relay, or "
            "a subclass of relay_verl.trainer.reward_manager.RelayRewardManager"
        )
    if is_relay and OmegaConf.select(reward, "custom_reward_function.path"):
        raise UserError(
            f"reward.custom_reward_function.path={reward.custom_reward_function.path}: the reward manager relay does "
            "not call it: set it to null; relay.reward says what earns how much, and a subclass of "
            "relay_verl.trainer.reward_manager.RelayRewardManager may judge answers otherwise"
        )
    if OmegaConf.select(reward, "custom_reward_function.path"):
        _check_reward_function(config, reward.custom_reward_function)
    if OmegaConf.select(reward, "reward_model.enable"):
        raise UserError(
            "reward.reward_model.enable=true: a reward model's scores and relay.reward would overwrite each other: set "
            "it to false"
        )
    return str(manager.name)


def _check_reward_function(config: VerlConfig, given: Any) -> None:
    """What a reward manager of the user's own gets as `compute_score` loads."""
    from verl.trainer.ppo.reward import get_custom_reward_fn

    key = f"reward.custom_reward_function.path={given.path} name={given.get('name')}"
    _loads_as(key, lambda: get_custom_reward_fn(config), object)


def _is_our_reward_manager(config: VerlConfig, manager: Any) -> bool:
    from verl.trainer.ppo.reward import resolve_reward_manager_cls

    from relay_verl.trainer.reward_manager import RelayRewardManager

    given = f"reward.reward_manager.name={manager.name}"
    return _loads_as(given, lambda: resolve_reward_manager_cls(config), RelayRewardManager, allowed="relay")


def check_replay_buffer(run: RunConfig) -> str:
    """The replay buffer does what the recipe and verl's config ask of it."""
    config = run.verl
    sampler = OmegaConf.select(config, "trainer.v1.sampler")
    if sampler is None:
        return "not given"
    settings = run.relay
    scope = settings.reward.scenario_scope
    key = "trainer.v1.sampler.custom_sampler"
    path, name = (OmegaConf.select(sampler, f"custom_sampler.{part}") for part in ("path", "name"))
    is_ours = (path, name) == (SAMPLER_PATH, SAMPLER) or _is_our_sampler(key, path, name)
    filters = bool(OmegaConf.select(config, "algorithm.filter_groups.enable"))
    if filters and (is_ours or scope == "batch"):
        also = ""
        if scope == "batch":
            also = ", and relay.reward.scenario_scope=batch decides on rewards after a filter has read them"
        raise UserError(
            f"algorithm.filter_groups.enable=true: the recipes' replay buffer filters no groups{also}: set it to false"
        )
    if not is_ours:
        for setting, value, default in (
            ("relay.reward.scenario_scope", scope, "query"),
            ("relay.on_teacher_failure", settings.on_teacher_failure, "continue"),
        ):
            if value in ("batch", "fail"):
                raise UserError(
                    f"{key}.path={path}: {setting}={value} is the work of {SAMPLER_PATH}'s RelayReplayBuffer: set "
                    f"path={SAMPLER_PATH} name=RelayReplayBuffer, or {setting}={default}"
                )
        return CheckWarning(
            f"{key}.path={path}: another replay buffer than the recipes': it logs no relay/ metrics and waits for ever "
            "for a group that does not end"
        )
    if sampler.get("sync_refill_failed_groups"):
        raise UserError(
            "trainer.v1.sampler.sync_refill_failed_groups=true: the recipes' replay buffer replaces no groups: set it "
            "to false"
        )
    _check_mode(OmegaConf.select(config, "trainer.v1.trainer_mode") or "sync", key, path, name)
    return str(name)


def _check_mode(mode: str, key: str, path: str | None, name: str | None) -> None:
    """Our replay buffer is the one for the trainer's mode."""
    is_usual = (path, name) == (SAMPLER_PATH, SAMPLER)
    is_async = not is_usual and _is_our_sampler(key, path, name, is_async=True)
    if is_async and mode == "sync":
        fitting = "colocate_async or separate_async"
        raise UserError(f"trainer.v1.trainer_mode=sync: {name} is for the asynchronous modes: set {fitting}")
    if not is_async and mode != "sync":
        raise UserError(
            f"trainer.v1.trainer_mode={mode}: {name} is for sync: set trainer.v1.trainer_mode=sync, or add "
            f"+relay={mode} for {ASYNC_SAMPLER} of {ASYNC_SAMPLER_PATH}"
        )


def _is_our_sampler(key: str, path: str | None, name: str | None, *, is_async: bool = False) -> bool:
    if not path or not name:
        return False
    from verl.utils.import_utils import load_extern_object

    from relay_verl.trainer.async_replay_buffer import AsyncRelayReplayBuffer
    from relay_verl.trainer.replay_buffer import RelayReplayBuffer

    ours = AsyncRelayReplayBuffer if is_async else RelayReplayBuffer
    return _loads_as(f"{key}.path={path} name={name}", lambda: load_extern_object(path, name), ours)


def _loads_as(given: str, load: Any, ours: Any, *, allowed: str = "") -> bool:
    """Whether `load` gives a subclass of `ours`.

    Raises:
        UserError: nothing is there; begins with `given`, a key and its value.
    """
    hint = f"; allowed: {allowed}" if allowed else ""
    # another project's module may raise anything as it is imported
    with as_user_error(Exception, lambda error: f"{given}: it cannot be loaded: {first_line(error)}{hint}"):
        loaded = load()
    return isinstance(loaded, type) and issubclass(loaded, ours)


def check_groups(run: RunConfig) -> str:
    """Rewards and advantages that compare a query's samples have several of them."""
    settings, config = run.relay, run.verl
    num_samples = config.actor_rollout_ref.rollout.n
    reward = settings.reward
    if num_samples == 1 and find_reward(reward.kind).needs_groups and reward.scenario_scope == "query":
        raise UserError(
            f"actor_rollout_ref.rollout.n=1: relay.reward.kind={reward.kind} tells scenarios apart by several "
            "samples of a query: set at least 2, or relay.reward.kind=simple"
        )
    estimator = OmegaConf.select(config, "algorithm.adv_estimator")
    if estimator is not None and estimator not in GROUPED_ESTIMATORS:
        return CheckWarning(
            f"algorithm.adv_estimator={estimator}: does not compare the samples of a query, as the paper's grpo does"
        )
    if num_samples == 1:
        return CheckWarning(
            f"actor_rollout_ref.rollout.n=1: algorithm.adv_estimator={estimator} has nothing to compare"
        )
    return f"{num_samples} samples a query"


def check_teacher_tokens(run: RunConfig) -> str:
    """Teacher tokens that are trained on meet nothing that reads log-probabilities of the rollout: they have none."""
    if not run.relay.train_on_teacher_tokens:
        return "masked"
    off = {
        "actor_rollout_ref.rollout.calculate_log_probs": False,
        "actor_rollout_ref.actor.use_rollout_log_probs": False,
        "algorithm.rollout_correction.bypass_mode": False,
        "algorithm.rollout_correction.rollout_is": None,
        "algorithm.rollout_correction.rollout_rs": None,
    }
    given = {key: value for key in off if (value := OmegaConf.select(run.verl, key)) not in (None, False)}
    if given:
        shown = ", ".join(f"{key}={str(value).lower()}" for key, value in given.items())
        fix = " ".join(f"{key}={'null' if off[key] is None else 'false'}" for key in given)
        raise UserError(
            f"relay.train_on_teacher_tokens=true: the student did not sample the teacher's tokens, so that there are "
            f"no log-probabilities of the rollout for {shown}: set {fix}"
        )
    return "trained on"


def check_dataset_class(config: VerlConfig) -> str:
    """A threshold of the teacher's pass rate is applied by the dataset class that reads it."""
    threshold = OmegaConf.select(config, "data.min_pass_rate") or 0
    given = OmegaConf.select(config, "data.custom_cls") or {}
    path, name = given.get("path"), given.get("name")
    if not threshold or not given or (path, name) == ("pkg://relay_verl.trainer.datasets", "TeacherSolvableDataset"):
        return str(name or "verl's")
    return CheckWarning(
        f"data.custom_cls.path={path} name={name}: relay.filter.min_pass_rate={threshold:g} is applied by "
        "TeacherSolvableDataset of pkg://relay_verl.trainer.datasets, and by others only if they do the same"
    )
