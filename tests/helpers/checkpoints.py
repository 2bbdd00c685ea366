"""Checkpoint folders as verl writes them, of a few hundred weights, and the config of the run that wrote them."""

import json
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import torch
from omegaconf import OmegaConf

from relay_verl.checkpoints.record import record_of, write_checkpoint, write_run


def make_config(folder: Path, **overrides: Any) -> Any:
    """The keys of a composed config that checkpoints depend on; models and data are next to the run's folder."""
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


@contextmanager
def fake_mesh(world_size: int) -> Iterator[Any]:
    """A mesh of so many ranks that this process plays."""
    import torch.distributed as dist
    from torch.distributed.device_mesh import init_device_mesh
    from torch.testing._internal.distributed.fake_pg import FakeStore

    dist.init_process_group("fake", rank=0, world_size=world_size, store=FakeStore())
    try:
        yield init_device_mesh("cpu", (world_size,), mesh_dim_names=("fsdp",))
    finally:
        dist.destroy_process_group()


def save_shards(state: Mapping[str, torch.Tensor], mesh: Any, actor: Path) -> None:
    """The files of weights that FSDP2 leaves in an actor's folder, one a rank."""
    from torch.distributed.tensor import DTensor, Shard

    world_size = mesh.size()
    for rank in range(world_size):
        pieces = {}
        for name, weight in state.items():
            chunks = list(weight.chunk(world_size))
            piece = chunks[rank].clone() if rank < len(chunks) else weight[:0].clone()
            pieces[name] = DTensor.from_local(
                piece, mesh, [Shard(0)], run_check=False, shape=weight.shape, stride=weight.stride()
            )
        torch.save(pieces, actor / f"model_world_size_{world_size}_rank_{rank}.pt")
    (actor / "fsdp_config.json").write_text(json.dumps({"FSDP_version": 2, "world_size": world_size}))


def finish_run(config: Any, folder: Path, step: int, metrics: Mapping[str, float]) -> None:
    """All that makes a `global_step_N` folder with weights a whole checkpoint of a run."""
    run = folder.parent
    torch.save({}, folder / "data.pt")
    (run / "latest_checkpointed_iteration.txt").write_text(str(step))
    record = record_of(config)
    write_run(run, record)
    write_checkpoint(folder, record, step, metrics)
