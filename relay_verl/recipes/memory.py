"""What a recipe takes of a GPU, term by term. An estimate: each term is named with its arithmetic, and they are summed.

What is counted is what verl 0.9.1 does by default. FSDP2 keeps the trained weights, their gradients and Adam's two
moments in `model_dtype` (fp32), sharded over the GPUs, and gathers a layer at a time in bf16; the reference model is
forward only and lies in host memory. Under LoRA gradients and moments are those of the adapter, and the actor without
its adapter is the reference. The student's vLLM shares the GPUs: it takes its share while it writes responses,
next to weights and moments, and sleeps while weights are trained. The teacher has GPUs of its own.

The terms of the trainer are tested against the peak of an H200 (tests/unit/recipes/test_recipes.py): with three
models of Qwen's shapes and micro-batches of 4,096 to 16,384 tokens their sum was within 6% of the peak allocation.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from omegaconf import OmegaConf

from relay_verl.recipes.adapter import count_adapter, rank_of
from relay_verl.recipes.shapes import Shape
from relay_verl.run_config import VerlConfig

GIB = 2**30
BF16 = 2
_BYTES = {"fp32": 4, "float32": 4, "bf16": 2, "bfloat16": 2, "fp16": 2, "float16": 2}
CONTEXT_GIB = 3.0
"""The CUDA context, NCCL's buffers, what the allocator leaves unused, and what a sleeping vLLM keeps."""
FUSED_GIB = 1.25
"""The fused loss's buffers: it makes the logits of some hundred tokens at a time, forward and again backward."""
WORKSPACE_GIB = 2.0
"""vLLM's activations and CUDA graphs inside its share."""
GPUS = {"80 GB": 79.0, "40 GB": 39.0}
"""What GPUs of these names have for programs, in GiB."""


@dataclass(frozen=True)
class Term:
    """One summand."""

    name: str
    arithmetic: str
    """How it comes about, in numbers."""
    num_bytes: float


@dataclass(frozen=True)
class Phase:
    """All that lies in one GPU's memory at a time."""

    name: str
    terms: tuple[Term, ...]

    @property
    def gib(self) -> float:
        """The sum."""
        return sum(term.num_bytes for term in self.terms) / GIB


@dataclass(frozen=True)
class Engine:
    """A vLLM engine's share of a GPU and what is left in it for the KV cache."""

    share: Term
    weights: Term
    workspace: Term
    token_bytes: float
    """KV cache of one token on one GPU."""
    max_model_len: int
    """Tokens that one sequence may have."""

    @property
    def cache_gib(self) -> float:
        """The KV cache; negative if the weights alone are too large."""
        return (self.share.num_bytes - self.weights.num_bytes - self.workspace.num_bytes) / GIB

    @property
    def num_tokens(self) -> int:
        """Tokens in the KV cache."""
        return max(0, int(self.cache_gib * GIB / self.token_bytes))

    @property
    def fits(self) -> bool:
        """Whether one sequence of full length has room, without which vLLM does not start."""
        return self.num_tokens >= self.max_model_len


def training_phase(shape: Shape, engine: Any, model: Any, num_gpus: int, num_tokens: int) -> Phase:
    """A GPU while weights are trained.

    Args:
        shape: the model's.
        engine: verl's FSDP engine config (`fsdp_config`, or the SFT trainer's `engine`).
        model: verl's model config.
        num_gpus: GPUs of the trainer.
        num_tokens: tokens in a micro-batch.
    """
    num_adapter = count_adapter(shape, model)
    terms = [*_state(shape, engine, num_gpus, num_adapter, with_gradients=True)]
    gathered = shape.num_vocab + 2 * shape.num_layer
    copies, and_gradient = (2, ", and as much gradient") if num_adapter is None else (1, "")
    terms.append(
        Term(
            "gathered",
            f"embedding, head and 2 layers, {_m(gathered)} x {BF16} B{and_gradient}",
            copies * BF16 * gathered,
        )
    )
    width = 4 * shape.hidden + (3 * shape.num_heads + 4 * shape.num_kv_heads) * shape.head_dim + 4 * shape.intermediate
    layer = f"{num_tokens:,} tokens x {width:,} x {BF16} B"
    if model.enable_gradient_checkpointing:
        kept = f"{num_tokens:,} tokens x {shape.hidden:,} x {shape.num_layers} layers x {BF16} B"
        terms.append(Term("kept states", kept, num_tokens * shape.hidden * shape.num_layers * BF16))
        terms.append(Term("one layer anew", layer, num_tokens * width * BF16))
    else:
        terms.append(
            Term("activations", f"{layer} x {shape.num_layers} layers", num_tokens * width * BF16 * shape.num_layers)
        )
    if model.use_fused_kernels:
        terms.append(Term("fused loss", f"{FUSED_GIB:g} GiB", FUSED_GIB * GIB))
    else:
        logits = f"{num_tokens:,} tokens x {shape.vocab:,} x {BF16} B x 3 (logits, log-softmax, gradient)"
        terms.append(Term("logits", logits, 3 * BF16 * num_tokens * shape.vocab))
    return Phase("while it trains", (*terms, _context()))


def update_phase(shape: Shape, engine: Any, model: Any, num_gpus: int) -> Phase:
    """A GPU while AdamW changes the weights: it makes one more copy of what is trained on its way."""
    num_adapter = count_adapter(shape, model)
    state = _state(shape, engine, num_gpus, num_adapter, with_gradients=True)
    copies = [Term("AdamW's copy", each.arithmetic, each.num_bytes) for each in state if each.name == "gradients"]
    return Phase("while Adam steps", (*state, *copies, _context()))


def writing_phase(shape: Shape, engine: Any, model: Any, num_gpus: int, share: Term) -> Phase:
    """A GPU while the student's vLLM writes responses."""
    state = _state(shape, engine, num_gpus, count_adapter(shape, model), with_gradients=False)
    return Phase("while it writes", (*state, share, _context()))


def vllm_engine(shape: Shape, share: float, tensor_parallel: int, max_model_len: int, gpu_gib: float) -> Engine:
    """A vLLM engine that takes `share` of each of `tensor_parallel` GPUs with `gpu_gib` GiB."""
    weights = shape.num_parameters * BF16 / tensor_parallel
    heads = max(1.0, shape.num_kv_heads / tensor_parallel)
    return Engine(
        Term("vLLM's share", f"{share:g} x {gpu_gib:g} GiB", share * gpu_gib * GIB),
        Term("weights", f"{_m(shape.num_parameters)} x {BF16} B / {tensor_parallel} GPUs", weights),
        Term("workspace", f"{WORKSPACE_GIB:g} GiB", WORKSPACE_GIB * GIB),
        shape.kv_bytes / shape.num_kv_heads * heads,
        max_model_len,
    )


def tokens_of_micro_batch(config: VerlConfig) -> int:
    """Most tokens that the actor trains at a time on one GPU, of a composed GRPO config."""
    actor = config.actor_rollout_ref.actor
    sequence = config.data.max_prompt_length + config.data.max_response_length
    if actor.use_dynamic_bsz:
        return max(int(actor.ppo_max_token_len_per_gpu), sequence)
    return int(actor.ppo_micro_batch_size_per_gpu or 1) * sequence


def _state(shape: Shape, engine: Any, num_gpus: int, num_adapter: int | None, *, with_gradients: bool) -> list[Term]:
    """Weights, gradients and moments that are on the GPU, sharded; of an adapter of so many parameters, if it is one
    that is trained."""
    if engine.offload_policy:
        return []
    size = _BYTES[engine.model_dtype]
    shards = min(engine.fsdp_size, num_gpus) if engine.fsdp_size > 0 else num_gpus
    num_trained = shape.num_parameters if num_adapter is None else num_adapter
    parts = [
        ("weights", shape.num_parameters, 1, with_gradients or not engine.param_offload),
        ("adapter", num_adapter or 0, 1, num_adapter is not None and (with_gradients or not engine.param_offload)),
        ("gradients", num_trained, 1, with_gradients),
        ("Adam's moments", num_trained, 2, with_gradients or not engine.optimizer_offload),
    ]
    return [
        Term(
            name,
            f"{_m(num_parameters)} x {size * copies} B / {shards} GPUs",
            num_parameters * size * copies / shards,
        )
        for name, num_parameters, copies, is_there in parts
        if is_there
    ]


def _context() -> Term:
    return Term("context and buffers", f"{CONTEXT_GIB:g} GiB", CONTEXT_GIB * GIB)


def reference_term(config: VerlConfig, shape: Shape, num_gpus: int) -> Term | None:
    """The reference model's share of host memory, a GPU; None where no KL term needs it, or LoRA does without."""
    if rank_of(config.actor_rollout_ref.model):
        return None
    if not (config.actor_rollout_ref.actor.use_kl_loss or OmegaConf.select(config, "algorithm.use_kl_in_reward")):
        return None
    size = _BYTES[config.actor_rollout_ref.ref.fsdp_config.model_dtype]
    arithmetic = f"{_m(shape.num_parameters)} x {size} B / {num_gpus} GPUs, in host memory"
    return Term("reference model", arithmetic, shape.num_parameters * size / num_gpus)


def _m(count: int) -> str:
    return f"{count / 1e6:,.1f}M"
