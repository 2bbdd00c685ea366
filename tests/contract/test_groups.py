"""A worker's groups, from the prompt to the trainer's batch: scripted engines, the real decoder, queue and buffer."""

import asyncio
from collections.abc import Callable
from types import SimpleNamespace
from typing import Any

import pytest
import transfer_queue as tq
from hydra import compose, initialize_config_module
from omegaconf import OmegaConf

import verl  # noqa: F401  isort: skip  (loads the plugin)
from verl.experimental.agent_loop.agent_loop import AgentLoopMetrics, AgentLoopOutput, DictConfigWrap

from relay_verl.config import read_settings
from relay_verl.engines import ScriptedEngine
from relay_verl.grading import Verdict
from relay_verl.run_config import RunConfig
from relay_verl.trainer.agent_loop import RelayAgentLoop
from relay_verl.trainer.group_rows import Sample, row_of
from relay_verl.trainer.metrics import SampleStats
from relay_verl.trainer.replay_buffer import RelayReplayBuffer
from relay_verl.trainer.reward_manager import RelayRewardManager
from relay_verl.trainer.rollout_worker import RelayAgentLoopWorker
from relay_verl.trainer.sample_log import SampleLog
from relay_verl.types import RelayStatus, RelayTrajectory, Segment
from tests.helpers.tokenizers import BPE_WORDS, make_bpe

TIMEOUT_S = 15.0
GRACE_S = 300.0


class Student:
    """verl's client over a student that does to each request what `behave` says of the prompt's text."""

    def __init__(self, tokenizer: Any, behave: Callable[[str, int], Any]):
        self._tokenizer = tokenizer
        self._behave = behave
        self._num_asked: dict[str, int] = {}
        self.cancelled: list[str] = []

    async def generate(self, request_id: str, *, prompt_ids: list[int], sampling_params: dict[str, Any]) -> Any:
        text = self._tokenizer.decode(prompt_ids)
        number = self._num_asked.setdefault(text, 0)
        self._num_asked[text] += 1
        try:
            answer = self._behave(text, number)
            answer = await answer if asyncio.iscoroutine(answer) else answer
        except asyncio.CancelledError:
            self.cancelled.append(text)
            raise
        ids = self._tokenizer.encode(answer, add_special_tokens=False)
        return SimpleNamespace(
            token_ids=[*ids, self._tokenizer.eos_token_id],
            log_probs=[-0.5] * (len(ids) + 1),
            stop_reason="completed",
            extra_fields={"min_global_steps": 1, "max_global_steps": 1},
        )


def make_worker(tmp_path: Any, behave: Callable[[str, int], Any], *overrides: str, teacher: Any = None) -> Any:
    """A worker without Ray around it."""
    tokenizer = make_bpe(BPE_WORDS)
    tokenizer.chat_template = "{% for m in messages %}{{ m.content }}{% endfor %}"
    words = [
        "actor_rollout_ref.rollout.n=2",
        f"relay.rollout_timeout_s={TIMEOUT_S}",
        "relay.teacher.path=t",
        f"trainer.default_local_dir={tmp_path}",
        *overrides,
    ]
    with initialize_config_module("verl.trainer.config", version_base=None):
        config = compose("ppo_trainer", overrides=["+recipe=relay_tiny", *words])
    worker = object.__new__(RelayAgentLoopWorker)
    worker.config, worker.settings = config, read_settings(config.relay)
    worker.tokenizer = tokenizer
    worker.reward_manager = RelayRewardManager(config, tokenizer)
    worker.student = Student(tokenizer, behave)
    worker.agent_loop = RelayAgentLoop(
        trainer_config=DictConfigWrap(config),
        server_manager=worker.student,
        tokenizer=tokenizer,
        processor=None,
        dataset_cls=None,
        data_config=DictConfigWrap(config.data),
        teachers={"t": teacher or ScriptedEngine(tokenizer, lambda context: "7")},
    )
    worker.scorer = None
    worker.sample_log = SampleLog.of(RunConfig(config), tokenizer)
    return worker


async def forever() -> str:
    while True:
        try:
            await asyncio.sleep(3600)
        except asyncio.CancelledError:  # as an engine that does not hear its cancellation
            await asyncio.sleep(1)
            raise


def run(worker: Any, *uids: str, partition: str = "train") -> tuple[Any, dict[str, float], dict[str, Any]]:
    """Run one group a uid, whose prompt is the uid; gives the batch, its metrics and the rows' fields."""
    buffer = RelayReplayBuffer(
        trainer_mode="sync",
        trainer_config=OmegaConf.create({}),
        max_off_policy_threshold=None,
        max_off_policy_strategy="drop",
        sampler_kwargs={"timeout_s": TIMEOUT_S, "grace_s": GRACE_S},
    )
    sampling = {
        "temperature": 1.0,
        "top_p": 1.0,
        "logprobs": worker.config.actor_rollout_ref.rollout.calculate_log_probs,
    }

    async def work() -> Any:
        worker.agent_loop.loop = asyncio.get_running_loop()
        await worker.reward_manager.grade([1], "7")  # the grader's start is not part of a group's time
        prompts = [
            {
                "agent_name": "relay_agent",
                "uid": uid,
                "raw_prompt": [{"role": "user", "content": uid}],
                "reward_model": {"ground_truth": "7"},
                "global_steps": 1,
            }
            for uid in uids
        ]
        trajectory = {"validate": partition == "val"}
        tasks = [asyncio.create_task(worker._run_prompt(prompt, sampling, trajectory)) for prompt in prompts]
        try:
            return await asyncio.to_thread(buffer.sample, global_steps=1, partition_id=partition, batch_size=len(uids))
        finally:
            await asyncio.gather(*tasks)

    tags = [{"is_prompt": True, "status": "pending", "global_steps": 1}] * len(uids)
    tq.kv_batch_put(keys=list(uids), partition_id=partition, tags=tags)
    batch, metrics = asyncio.run(work())
    fields = dict(tq.kv_batch_get(keys=batch.keys, partition_id=partition).items())
    tq.kv_clear(keys=batch.keys, partition_id=partition)
    return batch, metrics, fields


def test_a_hung_group_is_a_failed_group_and_the_step_has_the_others(queue: None, tmp_path: Any) -> None:
    worker = make_worker(tmp_path, lambda text, number: forever() if "hung" in text else "so 7")
    batch, metrics, _ = run(worker, "hung", "good", "fine")
    assert {key.split("_")[0] for key in batch.keys} == {"good", "fine"}
    assert len(batch.keys) == 4
    assert (metrics["relay/groups/timeout"], metrics["relay/groups/error"]) == (1.0, 0.0)
    assert metrics["relay/status/completed"] == 4.0


def test_one_hung_sample_fails_its_group_alone(queue: None, tmp_path: Any) -> None:
    worker = make_worker(tmp_path, lambda text, number: forever() if "hung" in text and number else "so 7")
    batch, metrics, _ = run(worker, "hung", "good")
    assert {key.split("_")[0] for key in batch.keys} == {"good"}
    assert metrics["relay/groups/timeout"] == 1.0


def fail() -> str:
    raise RuntimeError("the engine broke")


def test_the_only_survivor_of_a_group_is_dropped_and_counted(queue: None, tmp_path: Any) -> None:
    worker = make_worker(tmp_path, lambda text, number: fail() if "sole" in text and number else "so 7")
    batch, metrics, _ = run(worker, "sole", "good")
    assert {key.split("_")[0] for key in batch.keys} == {"good"}
    assert metrics["relay/groups/dropped_single"] == 1.0
    assert (metrics["relay/status/completed"], metrics["relay/status/student_failed"]) == (3.0, 1.0)


@pytest.mark.parametrize(
    ("overrides", "partition", "why"),
    [
        (["actor_rollout_ref.rollout.n=1", "relay.reward.kind=simple"], "train", "there was only one"),
        (["actor_rollout_ref.rollout.val_kwargs.n=2"], "val", "validation compares nothing"),
        (["actor_rollout_ref.rollout.n=3"], "train", "two are left"),
    ],
)
def test_a_sample_that_may_stay_alone(
    overrides: list[str], partition: str, why: str, queue: None, tmp_path: Any
) -> None:
    is_one = "rollout.n=1" in overrides[0]
    worker = make_worker(tmp_path, lambda text, number: fail() if number == 1 and not is_one else "so 7", *overrides)
    batch, metrics, _ = run(worker, "group", partition=partition)
    assert len(batch.keys) == (2 if "n=3" in overrides[0] else 1), why
    assert metrics.get("relay/groups/dropped_single", 0.0) == 0.0


def test_siblings_end_when_a_sample_ends_the_run(queue: None, tmp_path: Any) -> None:
    """The teacher fails for the one that calls; the other, still writing, is cancelled and not left running."""
    down = ScriptedEngine(make_bpe(BPE_WORDS), lambda context: RuntimeError("down"))
    started = asyncio.Event()

    async def wait() -> str:
        started.set()
        await asyncio.sleep(3600)
        return ""

    async def call() -> str:
        await started.wait()
        return "so <call>4</call>"

    worker = make_worker(
        tmp_path, lambda text, number: wait() if number else call(), "relay.on_teacher_failure=fail", teacher=down
    )
    with pytest.raises(Exception, match=r"relay\.on_teacher_failure=fail: "):
        run(worker, "group")
    assert worker.student.cancelled == ["group"]
    tq.kv_clear(keys=["group"], partition_id="train")


def test_teacher_tokens_that_are_trained_on_have_no_invented_logprob(queue: None, tmp_path: Any) -> None:
    def behave(text: str, number: int) -> str:
        return "so 7" if "call" in text else "so <call>1</call>"

    worker = make_worker(tmp_path, behave)
    _, _, masked = run(worker, "group")
    assert (masked["rollout_log_probs"].values() == 0).tolist() == (masked["response_mask"].values() == 0).tolist()
    assert 0 in masked["response_mask"].values().tolist(), "the teacher wrote"
    recipe = ["relay.train_on_teacher_tokens=true"]
    for more in ([], ["actor_rollout_ref.rollout.calculate_log_probs=false"]):
        _, _, trained = run(make_worker(tmp_path, behave, *recipe, *more), "group")
        assert trained["response_mask"].values().tolist() == [1] * len(masked["response_mask"].values())
        assert "rollout_log_probs" not in trained


def test_a_response_that_the_teacher_wrote_alone_has_the_version_of_its_step() -> None:
    """A policy of one's own may call before the student's first token, and verl averages the versions of all rows."""
    output = AgentLoopOutput(
        prompt_ids=[1],
        response_ids=[2, 3],
        response_mask=[0, 0],
        num_turns=2,
        metrics=AgentLoopMetrics(),
        extra_fields={"min_global_steps": None, "max_global_steps": None},
    )
    trajectory = RelayTrajectory([1], [Segment("teacher", [2, 3])], RelayStatus.COMPLETED)
    verdict = Verdict(is_correct=True, answer="7", status="graded")
    sample = Sample(trajectory, output, verdict, SampleStats.of(trajectory, is_correct=True))
    row = row_of(sample, 1.0, {"uid": "a", "global_steps": 4}, session_id=0)
    assert (row.tag["min_global_steps"], row.tag["max_global_steps"]) == (4, 4)
