"""A run that distils has one teacher that verl starts, and a loss that leaves the commands out; else one error says
what to set."""

from typing import Any

import pytest
from omegaconf import OmegaConf

from relay_verl.errors import UserError
from relay_verl.preflight.distillation_checks import check_distillation, check_topk
from relay_verl.preflight.placement import FreeNode, check_room
from relay_verl.recipes.estimate import estimate
from relay_verl.run_config import RunConfig

MODEL = "distillation.teacher_models.teacher_model"
LOSS = "distillation.distillation_loss"


def config(**overrides: Any) -> Any:
    """What a recipe composes for these parts, with other values by dotted key."""
    node = OmegaConf.create(
        {
            "relay": {"teacher": {"path": "big", "num_replicas": 2, "tensor_parallel_size": 2}},
            "actor_rollout_ref": {"model": {"path": "small", "use_fused_kernels": False}},
            "data": {"max_prompt_length": 10, "max_response_length": 20},
            "trainer": {"n_gpus_per_node": 2, "nnodes": 1, "device": "cpu"},
            "distillation": {
                "enabled": True,
                "n_gpus_per_node": "${relay.teacher.tensor_parallel_size}",
                "nnodes": "${relay.teacher.num_replicas}",
                "distillation_loss": {
                    "loss_mode": "forward_kl_topk",
                    "topk": 8,
                    "use_task_rewards": True,
                    "log_prob_min_clamp": None,
                },
                "teacher_models": {
                    "teacher_model": {
                        "model_path": "${relay.teacher.path}",
                        "inference": {
                            "tensor_model_parallel_size": "${relay.teacher.tensor_parallel_size}",
                            "dtype": "bfloat16",
                            "max_model_len": 31,
                        },
                    }
                },
            },
        }
    )
    for key, value in overrides.items():
        OmegaConf.update(node, key, value, force_add=True)
    return node


def test_what_the_recipes_compose_passes() -> None:
    assert check_distillation(RunConfig(config())).startswith("forward_kl_topk by big")
    assert check_distillation(RunConfig(config(**{"distillation.enabled": False}))) == "off"
    assert check_topk(RunConfig(config(**{"distillation.enabled": False}))) == "not needed"


@pytest.mark.parametrize("loss", ["k1", "k3"])
def test_an_estimate_is_for_runs_without_calls(loss: str) -> None:
    assert check_distillation(RunConfig(config(**{f"{LOSS}.loss_mode": loss, "relay.max_calls": 0}))).startswith(loss)


REFUSED = [
    # overrides, what the error begins with, what it also names
    ({"relay.teacher.api": "chat", "relay.teacher.base_url": "http://x/v1", "relay.teacher.path": None},
     "relay.teacher.api=chat", ["log-probabilities", "relay.teacher.path"]),
    ({"relay.teacher.base_url": "http://x/v1", "relay.teacher.path": None},
     "relay.teacher.base_url=http://x/v1", ["relay.teacher.path"]),
    ({"relay.teacher.text_bridge": True}, "relay.teacher.text_bridge=true", ["relay.teacher.text_bridge=false"]),
    ({"relay.teacher.node_resource": "teachers"}, "relay.teacher.node_resource=teachers", ["=null"]),
    ({"relay.teacher.path": None, "relay.max_calls": 0}, "relay.teacher.path=null", []),
    ({"relay.teachers": [{"path": "a"}, {"path": "b"}]}, "relay.teachers: a, b", ["name one"]),
    ({"distillation.teacher_models.second": {"key": "b"}}, "distillation.teacher_models: second", ["teacher_model"]),
    ({f"{MODEL}.model_path": "other"}, f"{MODEL}.model_path=other", ["expected big", "relay.teacher.path"]),
    ({f"{MODEL}.inference.tensor_model_parallel_size": 1}, f"{MODEL}.inference.tensor_model_parallel_size=1",
     ["relay.teacher.tensor_parallel_size"]),
    ({"relay.teacher.dtype": "float32"}, f"{MODEL}.inference.dtype=bfloat16", ["float32", "relay.teacher.dtype"]),
    ({"distillation.nnodes": 1}, "distillation.nnodes=1 x distillation.n_gpus_per_node=2", ["4 GPUs"]),
    ({f"{MODEL}.inference.max_model_len": 30}, f"{MODEL}.inference.max_model_len=30", ["at least 31"]),
    ({f"{LOSS}.loss_mode": "k3"}, f"{LOSS}.loss_mode=k3", ["call_free_kl_topk", "relay.max_calls=0"]),
    (
        {f"{LOSS}.loss_mode": "call_free_kl_topk", "actor_rollout_ref.actor.strategy": "megatron"},
        f"{LOSS}.loss_mode=call_free_kl_topk",
        ["actor_rollout_ref.actor.strategy=megatron", "fsdp2"],
    ),
    ({f"{LOSS}.topk": 0}, f"{LOSS}.topk=0", ["1 or more"]),
    ({f"{LOSS}.topk": None}, f"{LOSS}.topk=null", []),
    ({f"{LOSS}.topk": "many"}, f"{LOSS}.topk", ["many"]),
    ({f"{LOSS}.log_prob_min_clamp": -10.0}, f"{LOSS}.log_prob_min_clamp=-10", ["null"]),
    ({"actor_rollout_ref.model.use_fused_kernels": True}, "actor_rollout_ref.model.use_fused_kernels=true", ["false"]),
]  # fmt: skip


@pytest.mark.parametrize(("overrides", "begins", "names"), REFUSED, ids=[begins for _, begins, _ in REFUSED])
def test_what_cannot_distil_is_refused(overrides: dict[str, Any], begins: str, names: list[str]) -> None:
    with pytest.raises(UserError) as caught:
        check_distillation(RunConfig(config(**overrides)))
    text = str(caught.value)
    assert text.startswith(begins)
    assert all(name in text for name in names)
    assert "\n" not in text


@pytest.mark.parametrize(
    ("student", "teacher", "key"), [(4, 9, "actor_rollout_ref.model.path"), (9, 4, "relay.teacher.path")]
)
def test_topk_is_within_both_vocabularies(
    student: int, teacher: int, key: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    from relay_verl.models.vocabulary import Vocabulary
    from relay_verl.preflight import distillation_checks

    sizes = {"small": student, "big": teacher}
    monkeypatch.setattr(distillation_checks, "read_tokenizer", lambda *_: None)
    monkeypatch.setattr(distillation_checks, "read_vocabulary", lambda path, *_: Vocabulary(sizes[path], frozenset()))
    with pytest.raises(UserError, match=rf"topk=8: {key}=.* vocabulary of 4 tokens: set at most 4"):
        check_topk(RunConfig(config()))
    assert check_topk(RunConfig(config(**{f"{LOSS}.topk": 3}))) == "3 of 4 tokens"


@pytest.mark.parametrize("max_calls", [0, None])
def test_the_teachers_gpus_count_with_calls_and_without(max_calls: int | None) -> None:
    """A run that only distils has a teacher on GPUs of its own, too."""
    run = RunConfig(config(**{"relay.max_calls": max_calls}))
    assert list(run.teachers) == ["relay.teacher"]
    assert estimate(run, 79.0).num_teacher_gpus == 4
    with pytest.raises(UserError, match="the teacher finds no node with 2 GPU free"):
        check_room(run, [FreeNode("a", "10.0.0.1", 4)])
    check_room(run, [FreeNode("a", "10.0.0.1", 6)])
    off = RunConfig(config(**{"relay.max_calls": 0, "distillation.enabled": False}))
    assert off.teachers == {}
