"""What the CPU path counts on in verl's FSDP engine under LoRA, and what it sends in its stead."""

import inspect
from typing import Any

import pytest
import torch

from tests.helpers.warm_python import WarmPython

SCRIPT = """
import copy, os, torch, verl
from types import SimpleNamespace
from peft import LoraConfig, TaskType, get_peft_model
from torch.distributed.device_mesh import init_device_mesh
from torch.distributed.fsdp import fully_shard
from transformers import Qwen3Config, Qwen3ForCausalLM
from verl.workers.engine.fsdp.transformer_impl import FSDPEngine
import torch.distributed as dist

dist.init_process_group("gloo", store=dist.HashStore(), rank=0, world_size=1)
mesh = init_device_mesh("cpu", (1,))
torch.manual_seed(0)
sizes = dict(vocab_size=40, hidden_size=16, intermediate_size=24, head_dim=8, num_hidden_layers=2)
config = Qwen3Config(num_attention_heads=2, num_key_value_heads=1, tie_word_embeddings=True, **sizes)
model = Qwen3ForCausalLM(config)
plain = {name: weight.clone() for name, weight in model.state_dict().items()}
lora = LoraConfig(task_type=TaskType.CAUSAL_LM, r=2, lora_alpha=6, target_modules="all-linear")
model = get_peft_model(model, lora)
for name, weight in model.named_parameters():
    if "lora_B" in name:
        torch.nn.init.normal_(weight, std=0.001)
wanted = copy.deepcopy(model).merge_and_unload().state_dict()
for layer in model.base_model.model.model.layers:
    fully_shard(layer, mesh=mesh)
fully_shard(model, mesh=mesh)
engine = FSDPEngine.__new__(FSDPEngine)
engine.module, engine._is_offload_param = model, False
engine.model_config = SimpleNamespace(target_parameters=None, lora={"merge": True})
sent = dict(engine._merged_lora_per_tensor_param())
worst = max(float((sent[name].float() - wanted[name]).abs().max()) for name in wanted)
left = all(
    torch.equal(weight.full_tensor(), plain[name.removeprefix("base_model.model.").replace(".base_layer", "")])
    for name, weight in model.state_dict().items() if "lora_" not in name
)
print(sorted(sent) == sorted(wanted), {str(weight.dtype) for weight in sent.values()}, worst < 1e-7, left)
"""


def test_on_cpu_what_is_sent_is_base_plus_adapter_in_32_bits(warm_python: WarmPython) -> None:
    """All names of the base model, no rounding, and the base is what it was."""
    done = warm_python.run("-c", SCRIPT, env={"VERL_PLATFORM": "cpu", "VERL_ENGINE_DEVICE": "cuda"})
    assert done.returncode == 0, done.stderr[-3000:]
    assert done.stdout.strip().splitlines()[-1] == "True {'torch.float32'} True True"


def test_verl_has_what_is_replaced_and_still_rounds() -> None:
    """Once verl sends 32 bits, `relay_verl.cpu.lora_weights` can go."""
    from verl.workers.engine.fsdp.transformer_impl import FSDPEngine

    original: Any = inspect.unwrap(FSDPEngine._merged_lora_per_tensor_param)
    assert "to(torch.bfloat16" in inspect.getsource(original)
    assert list(inspect.signature(original).parameters) == ["self"]


@pytest.mark.parametrize("key", ["lora_rank", "lora_alpha", "target_modules", "lora_adapter_path", "lora"])
def test_verls_config_has_the_keys(key: str) -> None:
    from relay_verl.recipes.compose import compose

    assert key in compose("relay_tiny").actor_rollout_ref.model


def test_the_recipes_on_cpu_send_merged_weights() -> None:
    from relay_verl.recipes.compose import compose

    assert compose("relay_tiny").actor_rollout_ref.model.lora.merge is True
    assert compose("relay_1.7b").actor_rollout_ref.model.lora.merge is False


def test_the_largest_rank_is_vllms() -> None:
    from typing import get_args

    from vllm.config.lora import MaxLoRARanks

    from relay_verl.preflight.lora import MAX_SERVED_RANK

    assert max(get_args(MaxLoRARanks)) == MAX_SERVED_RANK


def test_a_model_without_adapters_is_sent_as_it_is() -> None:
    from relay_verl.cpu.lora_weights import merged_weights

    model = torch.nn.Linear(2, 3)
    sent = dict(merged_weights(model))
    assert sent.keys() == {"weight", "bias"}
    assert torch.equal(sent["weight"], model.weight)


@pytest.mark.parametrize("tokens", [[0] * 6, [0, -1, 0, 0, -1, 0], [-1] * 6], ids=str)
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16], ids=str)
def test_an_adapter_served_on_cpu_is_what_vllm_adds(tokens: list[int], dtype: torch.dtype) -> None:
    """As by vLLM's own wrapper, with nothing added to tokens of requests without the adapter."""
    from vllm.lora.punica_wrapper.punica_cpu import PunicaWrapperCPU

    from relay_verl.cpu.served_adapter import add_adapter

    torch.manual_seed(0)
    num_inputs, rank, slices = 16, 4, (8, 4, 4)
    wrapper = PunicaWrapperCPU.__new__(PunicaWrapperCPU)
    wrapper._token_lora_indices, wrapper.indices_len = torch.tensor(tokens), [len(tokens)] * 5
    wrapper.is_prefill, wrapper.no_lora = False, max(tokens) < 0
    x, base = torch.randn(len(tokens), num_inputs).to(dtype), torch.randn(len(tokens), sum(slices)).to(dtype)
    a = [torch.randn(1, 1, rank, num_inputs).to(dtype) for _ in slices]
    b = [torch.randn(1, 1, outputs, rank).to(dtype) for outputs in slices]
    ours, theirs = base.clone(), base.clone()
    add_adapter(wrapper, ours, x, a, b, 2.0, slices)
    PunicaWrapperCPU.add_lora_linear(wrapper, theirs, x, tuple(a), tuple(b), 2.0, slices)
    without = torch.tensor(tokens) < 0
    assert torch.equal(ours[without], base[without])
    tolerance = {"atol": 1e-4, "rtol": 1e-4} if dtype == torch.float32 else {"atol": 0.3, "rtol": 0.05}
    torch.testing.assert_close(ours[~without], theirs[~without], **tolerance)
    assert all(without) or not torch.equal(ours, base)
