"""`distillation_loss.loss_mode: call_free_kl_topk`: verl's `forward_kl_topk` for a student that may call.

The teacher never calls. verl's loss therefore pulls down the probability of a command at every token that the student
wrote instead of one, until hardly any calls, though scores of commands themselves have no mass. Here the student's law
is that of its next token given that no command begins. With C the tokens that can begin one, but for those among the
teacher's likeliest,

    KL(p_T || p_S(. | not C)) = KL(p_T || p_S) + sum_k p_T log(1 - p_S(C)),

which does not depend on the logits of C: whether to call is left to the rewards.

For verl's FSDP engines. Remove this when verl's loss takes tokens to leave out (no upstream issue asks for it yet).
"""

from __future__ import annotations

from functools import cache, wraps
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor
from torch.utils.checkpoint import checkpoint

from relay_verl.distillation import CALL_FREE
from relay_verl.models.pretrained import load_auto_tokenizer
from relay_verl.protocol import find_beginning_in_bytes
from relay_verl.tokenization import TokenBytes

if TYPE_CHECKING:
    from verl.workers.config import DistillationConfig

CHUNK = 1024
"""Positions whose logits are held in 32 bits at a time."""
_NEVER = -1e4
"""A logit of probability 0, whose gradient is 0 and not undefined."""
_MOST = -1e-6
"""Largest log-probability of a command that counts, so that the logarithm of what is left is finite."""


def install_name(module: Any) -> None:
    """Let verl's `module` of losses know the name."""
    settings = module.DistillationLossSettings(names=[CALL_FREE], use_topk=True)
    module.register_distillation_loss(settings)(module.compute_forward_kl_topk)


def install(module: Any) -> None:
    """Add the term where verl's `module` has the whole logits."""
    original = module.compute_forward_kl_topk

    @wraps(original)
    def compute(
        student_logits: Tensor,
        teacher_topk_log_probs: Tensor,
        teacher_topk_ids: Tensor,
        config: DistillationConfig,
        data_format: str,
    ) -> dict[str, Tensor]:
        outputs: dict[str, Tensor] = original(
            student_logits, teacher_topk_log_probs, teacher_topk_ids, config, data_format
        )
        if config.distillation_loss.loss_mode != CALL_FREE:
            return outputs
        ids = teacher_topk_ids.values().unsqueeze(0)
        if module.get_ulysses_sequence_parallel_world_size() > 1:
            ids = module.slice_input_tensor(ids, dim=1)
        [teacher] = config.teacher_models.values()
        begins = torch.tensor(command_beginnings_at(teacher.model_path), device=student_logits.device)
        left = log_share_left(student_logits, begins, ids)
        # a new tensor: the gradient of verl's own goes through the old one
        outputs["distillation_losses"] = outputs["distillation_losses"] + outputs["teacher_mass"] * left
        return outputs

    module.compute_forward_kl_topk = compute


@cache
def command_beginnings_at(path: str) -> list[int]:
    """The ids after which the rest of a command can follow, by the tokenizer at a folder or hub id."""
    return command_beginnings(load_auto_tokenizer(path, False))


def command_beginnings(tokenizer: Any) -> list[int]:
    """The ids whose text ends with the beginning of a command, such as '<' and ' <'."""
    tokens = TokenBytes(tokenizer)
    pieces = ((token_id, tokens.to_bytes(token_id)) for token_id in range(len(tokenizer)))
    return [token_id for token_id, piece in pieces if find_beginning_in_bytes(piece, is_nested=False) < len(piece)]


def log_share_left(logits: Tensor, begins: Tensor, kept: Tensor) -> Tensor:
    """log(1 - p(C)) at each position, [batch, length].

    Args:
        logits: of the student, [batch, length, vocabulary].
        begins: ids that can begin a command, [num_ids].
        kept: ids that are not in C at a position, [batch, length, k].
    """

    def of_chunk(part: Tensor, kept_part: Tensor) -> Tensor:
        wide = part.float()
        is_kept = (begins[:, None] == kept_part[..., None, :]).any(-1)
        commands = wide[..., begins].masked_fill(is_kept, _NEVER)
        log_share = torch.logsumexp(commands, -1) - torch.logsumexp(wide, -1)
        return torch.log(-torch.expm1(log_share.clamp_max(_MOST)))

    # computed again in the backward pass, so that no copy of all logits stays
    chunks = zip(logits.split(CHUNK, dim=1), kept.split(CHUNK, dim=1), strict=True)
    parts = [checkpoint(of_chunk, *chunk, use_reentrant=False) for chunk in chunks]
    return torch.cat(parts, dim=1)
