"""What a composed recipe needs: its GPUs, and whether a GPU of a given size holds its part of it."""

from __future__ import annotations

from dataclasses import dataclass

from relay_verl.config import num_gpus_of
from relay_verl.recipes.memory import (
    Engine,
    Phase,
    Term,
    reference_term,
    tokens_of_micro_batch,
    training_phase,
    update_phase,
    vllm_engine,
    writing_phase,
)
from relay_verl.recipes.shapes import shape_of
from relay_verl.run_config import RunConfig


@dataclass(frozen=True)
class GpuEstimate:
    """A recipe on GPUs of one size."""

    gpu_gib: float
    """GiB of a GPU."""
    num_trainer_gpus: int
    num_teacher_gpus: int
    """0 without a teacher, or with one at an endpoint."""
    phases: tuple[Phase, ...] = ()
    """What one of the trainer's GPUs holds, phase by phase."""
    student: Engine | None = None
    """The student's vLLM."""
    teacher: Engine | None = None
    """Of several teachers the one with the least room for its cache."""
    host: Term | None = None
    """Host memory a GPU next to it."""
    unknown: tuple[str, ...] = ()
    """Models whose shape is not known, so that their part is missing here."""
    is_cpu: bool = False
    """Trains on CPU: its GPUs are Ray's logical ones, and nothing is counted."""
    is_head: bool = False
    """Makes a defer head: the trainer's GPU is that of the student's engine."""

    @property
    def trainer(self) -> str:
        """What a message calls the trainer."""
        return "student" if self.is_head else "trainer"

    @property
    def peak_gib(self) -> float:
        """The largest phase of a trainer's GPU."""
        return max((phase.gib for phase in self.phases), default=0.0)

    @property
    def fits(self) -> bool:
        """Whether all that is known fits."""
        engines = [engine for engine in (self.student, self.teacher) if engine is not None]
        return self.peak_gib <= self.gpu_gib and all(engine.fits for engine in engines)


def estimate(run: RunConfig, gpu_gib: float) -> GpuEstimate:
    """The estimate of a composed config, a GRPO or a warm-up recipe's.

    Args:
        run: composed over verl's defaults.
        gpu_gib: GiB of a GPU.
    """
    if not run.is_grpo:
        return _warm_up(run, gpu_gib)
    settings = run.relay
    is_head = settings.defer_training.kind is not None  # no trainer: the student's engine is a replica as the teacher's
    num_gpus = 1 if is_head else run.trainer.num_gpus
    teachers = [each for each in run.teachers.values() if each.path]
    num_teacher_gpus = num_gpus_of(teachers)
    if run.trainer.is_cpu:
        return GpuEstimate(gpu_gib, num_gpus, num_teacher_gpus, is_cpu=True, is_head=is_head)
    config = run.verl
    parts = config.actor_rollout_ref
    length = run.lengths.max_context or int(config.data.max_prompt_length) + run.lengths.max_response
    phases: tuple[Phase, ...] = ()
    student = host = None
    unknown, engines = [], []
    address = run.student
    if (shape := shape_of(address)) is None:
        unknown.append(str(address))
    elif is_head:
        student = vllm_engine(shape, settings.teacher.gpu_memory_utilization, 1, length, gpu_gib)
        phases = (Phase("while it answers", (student.share,)),)
    else:
        tensor_parallel = parts.rollout.tensor_model_parallel_size
        student = vllm_engine(shape, parts.rollout.gpu_memory_utilization, tensor_parallel, length, gpu_gib)
        phases = (
            writing_phase(shape, parts.actor.fsdp_config, parts.model, num_gpus, student.share),
            training_phase(shape, parts.actor.fsdp_config, parts.model, num_gpus, tokens_of_micro_batch(config)),
            update_phase(shape, parts.actor.fsdp_config, parts.model, num_gpus),
        )
        host = reference_term(config, shape, num_gpus)
    for given in teachers:
        if (shape := shape_of(given.path)) is None:
            unknown.append(str(given.path))
        else:
            share, tensor_parallel = given.gpu_memory_utilization, given.tensor_parallel_size
            engines.append(vllm_engine(shape, share, tensor_parallel, length, gpu_gib))
    teacher = min(engines, key=lambda engine: engine.cache_gib, default=None)
    return GpuEstimate(
        gpu_gib, num_gpus, num_teacher_gpus, phases, student, teacher, host, tuple(unknown), is_head=is_head
    )


def _warm_up(run: RunConfig, gpu_gib: float) -> GpuEstimate:
    config, num_gpus, is_cpu = run.verl, run.trainer.num_gpus, run.trainer.is_cpu
    shape = shape_of(config.model.path)
    if is_cpu or shape is None:
        unknown = () if is_cpu else (str(config.model.path),)
        return GpuEstimate(gpu_gib, num_gpus, 0, unknown=unknown, is_cpu=is_cpu)
    num_tokens = max(int(config.data.max_token_len_per_gpu), int(config.data.max_length))
    phase = training_phase(shape, config.engine, config.model, num_gpus, num_tokens)
    return GpuEstimate(gpu_gib, num_gpus, 0, (phase, update_phase(shape, config.engine, config.model, num_gpus)))
