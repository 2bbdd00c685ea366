"""`optim.lr_scheduler_type: linear` for verl's FSDP engine: up over the warm-up, then straight down to 0 (paper 3.1).

The released warm-up leaves its trainer's default schedule, which is this one. verl 0.9.1 knows `linear` for Megatron
alone: the config of its FSDP optimizer refuses the word, and the engine that builds the schedule does not know it. Both
are taught it here; any other schedule is verl's own, untouched.

Remove this when `FSDPOptimizerConfig` takes `linear` (no upstream issue asks for it yet).
"""

from __future__ import annotations

from typing import Any

LINEAR = "linear"


def install(module: Any) -> None:
    """Teach `module`, which verl has just imported, the schedule."""
    if module.__name__ == "verl.workers.config.optimizer":
        _allow(module.FSDPOptimizerConfig)
    else:
        _build(module.FSDPEngine)


def _allow(optimizer_config: Any) -> None:
    check = optimizer_config.__post_init__

    def check_all_but_linear(self: Any) -> None:
        is_linear = self.lr_scheduler_type == LINEAR
        if is_linear:
            self.lr_scheduler_type = "constant"  # a word that verl's check takes, while it checks the rest
        check(self)
        if is_linear:
            self.lr_scheduler_type = LINEAR

    optimizer_config.__post_init__ = check_all_but_linear


def _build(engine: Any) -> None:
    build = engine._build_lr_scheduler

    def build_linear_too(self: Any, optimizer: Any) -> Any:
        optim = self.optimizer_config
        if optim.lr_scheduler_type != LINEAR:
            return build(self, optimizer)
        from transformers import get_linear_schedule_with_warmup

        num_steps, num_warmup = optim.total_training_steps, optim.lr_warmup_steps
        if num_warmup <= 0:  # verl's rule: the ratio counts where no number is given
            num_warmup = int(optim.lr_warmup_steps_ratio * num_steps)
        return get_linear_schedule_with_warmup(optimizer, num_warmup, num_steps)

    engine._build_lr_scheduler = build_linear_too
