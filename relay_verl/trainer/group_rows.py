"""A group's ended samples as rows for verl's trainer: what verl's own worker would put into its transfer queue."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import torch
from verl.experimental.agent_loop.agent_loop import AgentLoopOutput

from relay_verl.grading import Verdict
from relay_verl.trainer.metrics import SampleStats
from relay_verl.types import RelayTrajectory


@dataclass(frozen=True)
class Sample:
    """One ended sample of a group."""

    trajectory: RelayTrajectory
    output: AgentLoopOutput
    verdict: Verdict
    stats: SampleStats
    """What metrics and rewards know of it."""


@dataclass(frozen=True)
class Row:
    """A sample in verl's form."""

    key: str
    """Its name in the transfer queue."""
    fields: dict[str, Any]
    """Tensors and values by verl's names."""
    tag: dict[str, Any]
    """What verl reads of it without its tensors."""


def row_of(sample: Sample, reward: float, fields: Mapping[str, Any], session_id: int) -> Row:
    """The row of a sample.

    Args:
        sample: the sample; its `output` gets reward and validation's figures.
        reward: what it earned.
        fields: the dataset's columns of its prompt.
        session_id: its place among its group's rows.
    """
    sample.output.reward_score = reward
    sample.output.extra_fields["reward_extra_info"] = _reward_extra_info(sample)
    row = sample.output.as_dict() | dict(fields) | {"session_id": session_id, "multi_modal_inputs": {}}
    # verl's trainer reads the mask under both names.
    row["loss_mask"] = row["response_mask"]
    row["input_ids"] = torch.cat([row["prompts"], row["responses"]])  # [prompt_length + response_length]
    row["position_ids"] = torch.arange(len(row["input_ids"]))
    # a response that the teacher wrote alone has no version of the student's: none of it is stale
    versions = {name: row["extra_fields"][name] for name in ("min_global_steps", "max_global_steps")}
    versions = {name: fields["global_steps"] if step is None else step for name, step in versions.items()}
    tag = {
        "status": "success",
        "prompt_len": len(row["prompts"]),
        "response_len": len(row["responses"]),
        "seq_len": len(row["input_ids"]),
        "global_steps": fields["global_steps"],
        **versions,
    }
    # verl's form of a key: prompt, sample, number of the sample's row; here a sample has one row.
    return Row(f"{fields['uid']}_{session_id}_0", row, tag)


def fields_of(prompt: Mapping[str, Any]) -> dict[str, Any]:
    """The dataset's columns of a prompt, which its rows keep."""
    return {key: value for key, value in prompt.items() if key not in ("agent_name", "__do_sample__", "__rollout_n__")}


def _reward_extra_info(sample: Sample) -> dict[str, float]:
    """What verl's validation averages a sample by."""
    trajectory = sample.trajectory
    return {
        "acc": float(sample.verdict.is_correct),
        "call_rate": float(trajectory.has_called),
        "call_ratio": trajectory.call_ratio,
        "num_calls": float(trajectory.num_calls),
        "requested_tokens": float(trajectory.num_requested_tokens),
        "delivered_tokens": float(trajectory.num_teacher_tokens),
        "malformed_calls": float(trajectory.num_malformed_calls),
        "failed_calls": float(trajectory.num_failed_calls),
    }
