"""What the plugin counts on in the pinned verl: a change there fails here first."""

import asyncio
import importlib.util
import inspect
import subprocess
import sys
from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from omegaconf import OmegaConf

import verl  # isort: skip  (loads the plugin)
from verl import DataProto

from relay_verl import plugin
from relay_verl.engines import load
from relay_verl.engines.verl_server import VerlServerEngine
from relay_verl.recipes.compose import compose_overrides
from tests.helpers.tokenizers import bpe
from tests.helpers.warm_python import WarmPython


def parameters(function: object) -> list[str]:
    """Names of its parameters but for the one that Ray's tracing adds."""
    return [name for name in inspect.signature(function).parameters if name != "_ray_trace_ctx"]  # type: ignore[arg-type]


def test_verl_is_a_tested_version() -> None:
    assert verl.__version__ in plugin.TESTED_VERL


def test_reward_manager_is_registered() -> None:
    from verl.experimental.reward_loop.reward_manager import get_reward_manager_cls

    from relay_verl.trainer.reward_manager import RelayRewardManager

    assert get_reward_manager_cls("relay") is RelayRewardManager


@pytest.mark.parametrize(
    ("reward_model", "right", "wrong"),
    [
        ({"ground_truth": ["2"]}, "2", "3"),
        ({"ground_truth": np.array(["1", "7"], dtype=object)}, "7, 1", "7"),
        ({"ground_truth": ["0.5", "3"], "any_of": True}, "3", "4"),
        ({"ground_truth": 70.0}, "70", "7"),
        ({"ground_truth": {"target": "2"}}, "2", "3"),
    ],
)
def test_stock_workers_get_rewards_by_truths_of_every_kind(reward_model: Any, right: str, wrong: str) -> None:
    from relay_verl.trainer.reward_manager import RelayRewardManager

    class Tokenizer:
        def decode(self, ids: list[int], **_: Any) -> str:
            return bytes(ids).decode()

    manager = RelayRewardManager(OmegaConf.create({"relay": {"teacher": {"path": "x"}}}), Tokenizer())
    for answer, score in ((right, 1.0), (wrong, 0.0)):
        response = torch.tensor([list(rf"\boxed{{{answer}}}".encode())])  # [1, response_length]
        data = DataProto.from_dict(
            {"prompts": torch.zeros(1, 1, dtype=torch.long), "responses": response,
             "attention_mask": torch.ones(1, 1 + response.shape[1], dtype=torch.long)},
            {"reward_model": np.array([reward_model], dtype=object), "ability": np.array(["math"], dtype=object)},
        )  # fmt: skip
        assert asyncio.run(manager.run_single(data))["reward_score"] == score


def test_agent_loop_is_registered() -> None:
    from verl.experimental.agent_loop import agent_loop

    assert agent_loop._agent_loop_registry["relay_agent"] == {
        "_target_": "relay_verl.trainer.agent_loop.RelayAgentLoop"
    }


def test_loading_the_plugin_twice_is_harmless(warm_python: WarmPython) -> None:
    done = warm_python.run(
        "-c",
        "import verl, importlib, relay_verl.plugin as p; importlib.reload(p); importlib.reload(p);"
        "from verl.experimental.reward_loop.reward_manager import get_reward_manager_cls as get;"
        "print(get('relay').__name__)",
        env={"VERL_PLATFORM": "cpu"},
    )
    assert done.stdout.split()[-1] == "RelayRewardManager", done.stderr


def test_a_plugin_that_fails_to_load_says_so(warm_python: WarmPython) -> None:
    done = warm_python.run("-c", "import sys; sys.modules['wrapt'] = None; import verl")
    assert "relay_verl: the plugin failed to load: " in done.stderr


def test_an_untested_verl_is_one_line(warm_python: WarmPython) -> None:
    done = warm_python.run(
        "-c",
        "import importlib.metadata as m; v = m.version;"
        "m.version = lambda n: '0.99.0' if n == 'verl' else v(n); import verl",
    )
    lines = [line for line in done.stderr.splitlines() if line.startswith("relay_verl:")]
    assert lines == [f"relay_verl: verl 0.99.0 is not tested with it; tested: {', '.join(plugin.TESTED_VERL)}"]


def test_importing_the_core_loads_neither_torch_nor_verl() -> None:
    code = (
        "import sys, relay_verl.decoder, relay_verl.rewards, relay_verl.config, relay_verl.grading;"
        "import relay_verl.trainer.metrics;"
        "print([m for m in ('torch', 'verl', 'ray', 'vllm', 'transformers') if m in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=300)
    assert done.stdout.strip() == "[]", done.stdout + done.stderr


@pytest.mark.parametrize(("platform", "expected"), [("", "nvidia"), ("cpu", "cpu")])
def test_cpu_is_chosen_by_name_and_never_by_detection(platform: str, expected: str, warm_python: WarmPython) -> None:
    done = warm_python.run(
        "-c",
        "import verl; from verl.plugin.platform.platform_manager import get_platform as get; print(get().vendor_name)",
        env={"VERL_PLATFORM": platform},
    )
    assert done.stdout.split()[-1] == expected


def test_the_worker_and_manager_hooks() -> None:
    from verl.trainer.ppo.v1.agent_loop_tq import AgentLoopManagerTQ, AgentLoopWorkerTQ

    worker = AgentLoopWorkerTQ.__ray_metadata__.modified_class
    assert parameters(worker._run_prompt) == ["self", "prompt", "sampling_params", "trajectory", "trace"]
    assert parameters(worker._agent_loop_postprocess) == ["self", "output", "validate", "kwargs"]
    assert inspect.iscoroutinefunction(AgentLoopManagerTQ._init_agent_loop_workers)
    source = inspect.getsource(AgentLoopManagerTQ._init_agent_loop_workers)
    assert "self.teacher_client" in source, "the slot that carries our teacher to the workers"


async def test_our_rows_are_those_that_verls_own_worker_packs(monkeypatch: pytest.MonkeyPatch) -> None:
    """The same output through verl's packing and through ours, which puts a whole group at once."""
    import torch
    import transfer_queue as tq
    from verl.experimental.agent_loop.agent_loop import AgentLoopMetrics, AgentLoopOutput

    from relay_verl.grading import Verdict
    from relay_verl.trainer.group_rows import Sample
    from relay_verl.trainer.metrics import SampleStats
    from relay_verl.trainer.rollout_worker import RelayAgentLoopWorker
    from relay_verl.types import RelayStatus, RelayTrajectory, Segment

    puts: list[dict[str, Any]] = []

    async def capture(**put: Any) -> None:
        puts.append(put)

    monkeypatch.setattr(tq, "async_kv_batch_put", capture)
    worker = RelayAgentLoopWorker.__new__(RelayAgentLoopWorker)
    worker.processor, worker.distillation_enabled, worker.reward_loop_worker_handles = None, False, None

    def output() -> AgentLoopOutput:
        return AgentLoopOutput(
            prompt_ids=[1, 2, 3],
            response_ids=[4, 5, 6, 7],
            response_mask=[1, 1, 0, 1],
            response_logprobs=[-0.1, -0.2, 0.0, -0.3],
            num_turns=4,
            metrics=AgentLoopMetrics(generate_sequences=1.0),
            extra_fields={"min_global_steps": 1, "max_global_steps": 2, "turn_scores": [], "tool_rewards": []},
        )

    segments = [Segment("student", [4, 5]), Segment("teacher", [6]), Segment("student", [7])]
    trajectory = RelayTrajectory([1, 2, 3], segments, RelayStatus.COMPLETED)
    fields = {"uid": "u", "raw_prompt": [{"role": "user", "content": "?"}], "global_steps": 2, "data_source": "tiny"}
    verdict = Verdict(True, "1", "graded")  # type: ignore[arg-type]
    sample = Sample(trajectory, output(), verdict, SampleStats.of(trajectory, is_correct=True))
    await worker._put_rows([sample], [0.75], dict(fields), "train")
    theirs = output()
    theirs.reward_score = 0.75
    theirs.extra_fields["reward_extra_info"] = sample.output.extra_fields["reward_extra_info"]
    await worker._agent_loop_postprocess(theirs, False, **fields, session_id=0)
    (mine, verls) = puts
    assert mine["keys"] == verls["keys"] == ["u_0_0"]
    assert mine["tags"] == verls["tags"]
    assert mine["partition_id"] == verls["partition_id"]
    assert set(mine["fields"].keys()) == set(verls["fields"].keys())
    for key in verls["fields"].keys():  # noqa: SIM118 (a TensorDict)
        ours, other = mine["fields"][key], verls["fields"][key]
        if isinstance(other, torch.Tensor):
            assert ours.dtype == other.dtype, key
            assert (
                torch.equal(ours.to_padded_tensor(0), other.to_padded_tensor(0))
                if other.is_nested
                else (torch.equal(ours, other))
            ), key
        else:
            assert list(ours) == list(other), key


def test_the_replay_buffer_hooks() -> None:
    from verl.trainer.ppo.v1.replay_buffer import ReplayBuffer

    assert parameters(ReplayBuffer._materialize_batch) == [
        "self",
        "partition_id",
        "selected_prompt_uids",
        "partition_snapshot",
    ]
    assert parameters(ReplayBuffer._wait_for_next_poll) == ["self", "partition_id", "last_debug_time"]
    assert "poll_interval" in parameters(ReplayBuffer.__init__)


REPLICA = """
import inspect
from verl.workers.rollout.replica import RolloutReplica
from verl.workers.rollout.vllm_rollout.vllm_async_server import vLLMHttpServer, vLLMReplica
launch = inspect.getsource(vLLMReplica.launch_servers)
assert launch.count("worker.__ray_call__.remote(") == launch.count("for worker in self.workers") == 1, "where are you?"
assert inspect.getsource(vLLMHttpServer).count("self.workers") == 3, "kept, and counted twice"
standalone = inspect.getsource(RolloutReplica.init_standalone)
for line in ("self.rollout_mode = RolloutMode.STANDALONE", "self.workers = ", "await self.launch_servers()"):
    assert line in standalone, line
print("as expected")
"""


def test_the_replica_hooks(warm_python: WarmPython) -> None:
    from verl.workers.rollout.replica import RolloutReplica
    from verl.workers.rollout.router import get_router_handle

    wanted = {"replica_rank", "config", "model_config", "gpus_per_node", "is_teacher_model", "name_suffix"}
    assert wanted <= set(parameters(RolloutReplica.__init__))
    assert "servers" in parameters(get_router_handle)
    done = warm_python.run("-c", REPLICA, env={"VERL_PLATFORM": "cpu"})
    assert done.stdout.split("\n")[-2:] == ["as expected", ""], done.stderr[-1000:]


def test_the_preflight_runs_before_verls_own_validation() -> None:
    import verl.utils.config as verl_config
    from verl.trainer import main_ppo

    assert main_ppo.validate_config is verl_config.validate_config
    assert verl_config.validate_config.is_relay_preflight

    source = inspect.getsource(main_ppo)
    main = source[source.index("def main(") :]
    assert main.index("validate_config(") < main.index("run_ppo(")


def test_the_preflight_of_the_warm_up_runs_before_verls_sft() -> None:
    from verl.trainer import sft_trainer
    from verl.utils import device

    assert sft_trainer.auto_set_device is device.auto_set_device
    assert device.auto_set_device.is_relay_preflight
    source = inspect.getsource(sft_trainer)
    main = source[source.index("def main(") :]
    assert main.index("auto_set_device(") < main.index("run_sft(")


def test_the_datasets_are_hooked_where_verl_reads() -> None:
    """verl's SFT trainer makes the dataset by these names; its GRPO dataset passes every row through this method."""
    from verl.trainer.sft_trainer import create_sft_dataset
    from verl.utils.dataset.rl_dataset import RLHFDataset

    from relay_verl.trainer.warmup_dataset import WarmupDataset

    names = {"parquet_files", "tokenizer", "config", "processor", "max_samples"}
    assert names <= set(parameters(WarmupDataset.__init__))
    assert all(f"{name}=" in inspect.getsource(create_sft_dataset) for name in names)
    assert "self.maybe_filter_out_long_prompts(" in inspect.getsource(RLHFDataset._read_files_and_tokenize)


def test_the_hooks_that_start_the_teachers_early() -> None:
    from verl.single_controller.ray.base import RayResourcePool
    from verl.trainer.ppo.v1.trainer_base import PPOTrainer

    assert PPOTrainer._init_resource_pool_mgr.starts_teachers
    setup = inspect.getsource(PPOTrainer._setup)
    assert setup.index("self._init_resource_pool_mgr()") < setup.index(
        "self.resource_pool_manager.create_resource_pool()"
    )
    assert "if self.pgs is not None:\n            return self.pgs" in inspect.getsource(
        RayResourcePool.get_placement_groups
    )


ASKED_OF_SERVERS = """
import inspect
from verl.workers.rollout.vllm_rollout import vllm_async_server
generate = vllm_async_server.vLLMHttpServer.generate
assert {"prompt_ids", "sampling_params", "request_id"} <= set(inspect.signature(generate).parameters)
assert "SamplingParams(max_tokens=max_tokens, **sampling_params)" in inspect.getsource(generate)
assert "self._server_task = await run_uvicorn(" in inspect.getsource(vllm_async_server), "whose loop serves"
from relay_verl.models.direct_server import vllm_names
print(vllm_names()[0].name)
"""


def test_what_the_client_over_replicas_asks_of_verl(warm_python: WarmPython) -> None:
    from verl.workers.rollout.llm_server import LLMServerClient
    from verl.workers.rollout.router import GlobalRequestLoadBalancer

    assert parameters(GlobalRequestLoadBalancer.acquire_server) == ["self", "request_id"]
    assert parameters(GlobalRequestLoadBalancer.release_server)[:2] == ["self", "server_id"]
    assert parameters(GlobalRequestLoadBalancer.get_all_servers) == ["self"]
    source = inspect.getsource(LLMServerClient.generate)
    assert 'setdefault("min_global_steps", global_steps)' in source, "which our client does too"
    assert 'setdefault("max_global_steps", global_steps)' in source
    done = warm_python.run("-c", ASKED_OF_SERVERS, env={"VERL_PLATFORM": "cpu"})
    assert done.stdout.split()[-1:] == ["FINAL_ONLY"], done.stderr[-1000:]


def test_the_checkpoint_hooks() -> None:
    import verl.trainer.main_ppo as main_ppo
    from verl.trainer.ppo.checkpoint_callback import CheckpointCallback
    from verl.trainer.ppo.v1.trainer_base import PPOTrainer

    from relay_verl.checkpoints.callback import RecordCheckpoint

    assert PPOTrainer._save_checkpoint.is_relay_save
    assert PPOTrainer.step.ends_without_teacher
    assert parameters(inspect.unwrap(PPOTrainer.step)) == ["self", "metrics", "timing_raw"]
    fit = inspect.getsource(PPOTrainer.fit)
    assert fit.index("self.step(metrics,") < fit.index("self._save_checkpoint()") < fit.index("self.on_step_end()")
    theirs, ours = parameters(CheckpointCallback.on_save), parameters(RecordCheckpoint.on_save)
    assert theirs == ours == ["self", "trainer", "global_step", "checkpoint_dir", "async_save", "kwargs"]
    source = inspect.getsource(inspect.unwrap(PPOTrainer._save_checkpoint))
    assert source.index("data.pt") < source.index("latest_checkpointed_iteration.txt") < source.rindex("on_save(")
    main = inspect.getsource(inspect.unwrap(main_ppo.main))
    assert main.index("validate_config(") < main.index("run_ppo(config"), "what the check changes reaches the trainer"


def test_the_mergers_hooks() -> None:
    from verl.model_merger.fsdp_model_merger import FSDPModelMerger

    assert parameters(FSDPModelMerger._load_rank_zero_state_dict) == ["self", "world_size"]
    names = ["self", "world_size", "total_shards", "mesh_shape", "mesh_dim_names"]
    assert parameters(FSDPModelMerger._load_and_merge_state_dicts) == names
    assert parameters(FSDPModelMerger.save_hf_model_and_tokenizer) == ["self", "state_dict"]


WARMED = [
    # step of 100, learning rate over the recipe's, why
    (0, 0.0, "it starts at nothing"),
    (5, 0.5, "half of the 10 steps up"),
    (10, 1.0, "the top"),
    (55, 0.5, "half of the 90 steps down"),
    (100, 0.0, "it ends at nothing"),
]


def linear_scheduler(**changes: Any) -> Any:
    """What verl's FSDP engine makes of the warm-up recipe's schedule."""
    import torch
    from hydra import compose, initialize_config_module
    from verl.utils.config import omega_conf_to_dataclass
    from verl.workers.engine.fsdp.transformer_impl import FSDPEngine

    with initialize_config_module("verl.trainer.config", version_base=None):
        node = compose("sft_trainer_engine", overrides=["+recipe=warmup_1.7b"]).optim
    node.update({"total_training_steps": 100, "lr_warmup_steps_ratio": 0.1, **changes})
    engine = FSDPEngine.__new__(FSDPEngine)
    engine.optimizer_config = omega_conf_to_dataclass(node)
    engine.__dict__.setdefault("rank", 0)
    return engine._build_lr_scheduler(torch.optim.SGD([torch.nn.Parameter(torch.zeros(1))], lr=node.lr))


@pytest.mark.parametrize(("step", "share", "why"), WARMED)
def test_the_warm_ups_schedule_is_linear(step: int, share: float, why: str) -> None:
    """verl's FSDP engine refuses the word; the plugin teaches it (relay_verl.trainer.linear_schedule)."""
    scheduler = linear_scheduler()
    for _ in range(step):
        scheduler.optimizer.step()
        scheduler.step()
    assert scheduler.get_last_lr() == pytest.approx([2e-5 * share]), why


def test_verls_own_schedules_are_its_own_and_others_are_refused() -> None:
    assert linear_scheduler(lr_scheduler_type="constant").lr_lambdas[0](50) == 1.0
    assert linear_scheduler(lr_scheduler_type="cosine").lr_lambdas[0](55) == pytest.approx(0.5)
    for other in ("square", "Linear", ""):
        with pytest.raises(Exception, match="FSDPOptimizerConfig"):
            linear_scheduler(lr_scheduler_type=other)


def test_verl_still_lacks_the_linear_schedule(warm_python: WarmPython) -> None:
    """Where this fails, relay_verl.trainer.linear_schedule can go."""
    done = warm_python.run(
        "-c",
        "import sys; sys.modules['relay_verl.plugin'] = sys\n"
        "from verl.workers.config.optimizer import FSDPOptimizerConfig\n"
        "FSDPOptimizerConfig(lr=1e-5, lr_scheduler_type='linear')",
    )
    assert "AssertionError" in done.stderr, done.stderr


@pytest.mark.parametrize("temperature", [0.0, 0.7])
async def test_vllms_server_samples_as_it_is_told_whatever_the_models_file_says(
    temperature: float, fake_vllm: Any
) -> None:
    """The real server's reading of an endpoint's request, with a generation_config that sets all it can."""
    from vllm import SamplingParams
    from vllm.entrypoints.openai.completion.protocol import CompletionRequest

    from relay_verl.config import TeacherSettings
    from relay_verl.engines import EndpointEngine
    from relay_verl.engines.base import NEUTRAL_SAMPLING

    fake_vllm.routes["/v1/completions"] = (500, {})
    sampling = TeacherSettings(path="x", temperature=0.7).sampling(greedy=temperature == 0.0)
    with pytest.raises(Exception, match="500"):
        await EndpointEngine(fake_vllm.url, "big").generate([1], max_tokens=9, sampling=sampling)
    body = fake_vllm.requests[-1][2]
    by_file = {"temperature": 0.6, "top_p": 0.95, "top_k": 20, "min_p": 0.1, "repetition_penalty": 1.3}
    served = CompletionRequest(**body).to_sampling_params(9, by_file)
    replica = SamplingParams(max_tokens=9, **{**NEUTRAL_SAMPLING, **sampling})
    for name in NEUTRAL_SAMPLING:
        assert getattr(served, name) == getattr(replica, name), name
    assert served.temperature == temperature


def test_vllm_publishes_the_counters_that_deadlines_and_bars_read() -> None:
    spec = importlib.util.find_spec("vllm")
    assert spec is not None
    assert spec.origin is not None
    loggers = (Path(spec.origin).parent / "v1" / "metrics" / "loggers.py").read_text()
    for name in load._NAMES:
        assert f'name="{name.removesuffix("_total")}"' in loggers


def test_verl_lets_vllm_count() -> None:
    """`relay_verl.models.launch` sets it for the replicas that it starts."""
    assert compose_overrides([]).actor_rollout_ref.rollout.disable_log_stats is True


async def test_requests_without_a_name_are_spread_over_verls_replicas() -> None:
    """The generators' samples have none; 4 replicas share 200 that run together, in verl's own balancer."""
    from verl.workers.rollout.replica import TokenOutput
    from verl.workers.rollout.router import GlobalRequestLoadBalancer

    balancer = GlobalRequestLoadBalancer(dict.fromkeys(map(str, range(4))))
    taken: Counter[str] = Counter()

    class Client:
        async def generate(self, request_id: str, *, prompt_ids: list[int], sampling_params: dict) -> TokenOutput:
            server, _ = balancer.acquire_server(request_id)
            taken[server] += 1
            return TokenOutput(token_ids=[1])

    engine = VerlServerEngine(Client(), bpe())
    await asyncio.gather(*(engine.generate([1], max_tokens=1) for _ in range(200)))
    assert dict(taken) == dict.fromkeys(map(str, range(4)), 50)
    await asyncio.gather(*(engine.generate([1], max_tokens=1, request_id="one") for _ in range(8)))
    assert sorted(taken.values()) == [50, 50, 50, 58], "a trajectory stays where its prefix is cached"
