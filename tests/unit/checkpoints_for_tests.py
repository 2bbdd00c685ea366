"""Checkpoint folders as verl writes them, of a few hundred weights, and the config of the run that wrote them."""

import json
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import torch
from omegaconf import OmegaConf

from relay_verl.checkpoints.record import record_of, write_checkpoint, write_run


def make_config(folder: Path, **overrides: Any) -> Any:
    """The keys of a composed config that checkpoints depend on; models and data are beside the run's folder."""
    folder.mkdir(parents=True, exist_ok=True)
    for name in ("student", "teacher"):
        (folder / name).mkdir(exist_ok=True)
        (folder / name / "config.json").write_text(json.dumps({"name": name}))
    if not (folder / "train.parquet").exists():
        pq.write_table(pa.table({"prompt": ["1+1", "1+2"]}), folder / "train.parquet")
    config = OmegaConf.create(
        {
            "data": {"train_files": str(folder / "train.parquet"), "seed": 1, "shuffle": True, "train_batch_size": 8},
            "actor_rollout_ref": {
                "model": {"path": str(folder / "student")},
                "actor": {
                    "ppo_micro_batch_size_per_gpu": 4,
                    "optim": {"lr": 1e-6, "lr_scheduler_type": "constant", "lr_warmup_steps_ratio": 0.0},
                    "checkpoint": {"save_contents": ["model", "optimizer", "extra"]},
                },
                "rollout": {"n": 8, "dtype": "float32"},
            },
            "trainer": {
                "default_local_dir": str(folder / "checkpoints"),
                "experiment_name": "one",
                "resume_mode": "auto",
                "resume_from_path": None,
                "save_freq": 5,
                "total_training_steps": 100,
                "max_actor_ckpt_to_keep": 2,
                "nnodes": 1,
                "n_gpus_per_node": 1,
                "launched_as": {"recipe": "relay_1.7b", "overrides": ["trainer.save_freq=5"]},
            },
            "relay": {"max_calls": 3, "reward": {"kind": "simple"}, "teacher": {"path": str(folder / "teacher")}},
        }
    )
    for key, value in overrides.items():
        OmegaConf.update(config, key, value)
    return config


def save_checkpoint(config: Any, step: int, *, with_record: bool = True, point: bool = True) -> Path:
    """A whole checkpoint of one GPU; gives its folder."""
    run = Path(config.trainer.default_local_dir)
    folder = run / f"global_step_{step}"
    actor = folder / "actor"
    (actor / "huggingface").mkdir(parents=True)
    weights = {"w": torch.arange(64.0) + step}
    torch.save(weights, actor / "model_world_size_1_rank_0.pt")
    torch.save({"state": weights}, actor / "optim_world_size_1_rank_0.pt")
    torch.save({"lr_scheduler": None}, actor / "extra_state_world_size_1_rank_0.pt")
    (actor / "fsdp_config.json").write_text(json.dumps({"FSDP_version": 2, "world_size": 1}))
    (actor / "huggingface" / "config.json").write_text("{}")
    torch.save({"step": step}, folder / "data.pt")
    if point:
        (run / "latest_checkpointed_iteration.txt").write_text(str(step))
    if with_record:
        record = record_of(config)
        write_run(run, record)
        write_checkpoint(folder, record, step, {"relay/accuracy": 0.5})
    return folder
