"""Whether the machine that starts a run has room for it: ports, the disk of the checkpoints, GPUs for the warm-up."""

from __future__ import annotations

import shutil
import socket
from pathlib import Path

from omegaconf import OmegaConf

from relay_verl.checkpoints.space import check_space, in_gb, nearest_folder
from relay_verl.errors import UserError, as_user_error
from relay_verl.preflight.check import CheckWarning
from relay_verl.run_config import RunConfig, TrainerSettings, VerlConfig

RAY_IS_FULL_AT = 0.95
"""Share of a disk in use at which Ray stops to write objects to it."""


def check_ports(config: VerlConfig) -> str:
    """The ports that the config fixes are free; Ray, verl and vLLM take free ones for all else."""
    options = OmegaConf.select(config, "ray_kwargs.ray_init") or {}
    port = options.get("dashboard_port")
    if port is None or options.get("include_dashboard") is False:
        return "none is fixed"
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        with as_user_error(
            OSError,
            lambda error: (
                f"ray_kwargs.ray_init.dashboard_port={port}: {error.strerror}; leave it out, and Ray takes a free one"
            ),
        ):
            probe.bind((options.get("dashboard_host") or "127.0.0.1", port))
    return str(port)


def check_disk(run: RunConfig) -> str:
    """There is room for the checkpoints, and Ray's own disk is not full."""
    import tempfile

    check_space(run)
    scratch = shutil.disk_usage(tempfile.gettempdir())
    if scratch.used > RAY_IS_FULL_AT * scratch.total:
        return CheckWarning(
            f"{tempfile.gettempdir()} is {scratch.used / scratch.total:.0%} full; Ray keeps no objects on a disk above "
            f"{RAY_IS_FULL_AT:.0%}: make room, or set RAY_TMPDIR to another"
        )
    free = shutil.disk_usage(nearest_folder(run.trainer.folder or Path.cwd())).free
    return f"{in_gb(free)} free for checkpoints"


def check_own_gpus(trainer: TrainerSettings) -> str:
    """verl's SFT trainer, which runs without Ray, finds a GPU if it is to use one."""
    import torch

    if trainer.is_cpu:
        return "runs on CPU"
    if not torch.cuda.is_available():
        raise UserError(
            f"trainer.device={trainer.device}: torch {torch.__version__} finds no GPU here; run it on a machine "
            "with one, or take warmup_tiny with VERL_PLATFORM=cpu"
        )
    return f"{torch.cuda.device_count()} here; torchrun's --nproc_per_node takes up to as many"
