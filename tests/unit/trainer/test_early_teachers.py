"""Teachers start once, when the trainer has its GPUs; where no trainer started them, whoever asks does."""

from collections.abc import Iterator
from concurrent.futures import Future
from types import SimpleNamespace
from typing import Any

import pytest
from omegaconf import OmegaConf

from relay_verl.errors import UserError
from relay_verl.run_config import RunConfig
from relay_verl.trainer import early_teachers

TEACHER = {"relay": {"teacher": {"path": "big"}}, "trainer": {"device": "cpu"}}


class Pool:
    """GPUs that are there once somebody asks."""

    def __init__(self, events: list[str]):
        self._events = events

    def get_placement_groups(self, device_name: str) -> None:
        self._events.append(f"GPUs on {device_name}")


class Manager:
    def __init__(self, events: list[str]):
        self._events = events
        self.resource_pool_dict: dict[str, Pool] = {}

    def create_resource_pool(self) -> None:
        self._events.append("pools")
        self.resource_pool_dict["trainer"] = Pool(self._events)


class PPOTrainer:
    """As far as the start of the teachers asks."""

    def __init__(self, config: dict[str, Any], events: list[str]):
        self.config = OmegaConf.create(config)
        self._events = events

    def _init_resource_pool_mgr(self) -> None:
        self.resource_pool_manager = Manager(self._events)

    def init(self) -> None:
        self._init_resource_pool_mgr()
        self.resource_pool_manager.create_resource_pool()
        self._events.append("workers")


@pytest.fixture
def events(monkeypatch: pytest.MonkeyPatch) -> Iterator[list[str]]:
    seen: list[str] = []

    def start(run: RunConfig) -> Future[dict[str, Any]]:
        seen.append("teachers")
        future: Future[dict[str, Any]] = Future()
        future.set_result({"big": len(seen)})
        return future

    monkeypatch.setattr(early_teachers, "_start", start)
    monkeypatch.setattr(early_teachers, "_started", None)
    yield seen


def trainer(config: dict[str, Any], events: list[str]) -> PPOTrainer:
    module = SimpleNamespace(PPOTrainer=type("PPOTrainer", (PPOTrainer,), {}))
    early_teachers.install(module)
    early_teachers.install(module)
    return module.PPOTrainer(config, events)


async def test_they_start_after_the_trainers_gpus_and_before_its_workers(events: list[str]) -> None:
    trainer(TEACHER, events).init()
    assert events == ["pools", "GPUs on cpu", "teachers", "workers"]
    run = RunConfig(OmegaConf.create(TEACHER))
    assert await early_teachers.teachers_of(run) == await early_teachers.teachers_of(run) == {"big": 3}


@pytest.mark.parametrize("config", [{"trainer": {"device": "cpu"}}, {**TEACHER, "relay": {"policy": "teacher_free"}}])
def test_a_run_without_teacher_starts_none(config: dict[str, Any], events: list[str]) -> None:
    trainer(config, events).init()
    assert events == ["pools", "workers"]


async def test_without_such_a_trainer_they_start_when_asked_for(events: list[str]) -> None:
    assert await early_teachers.teachers_of(RunConfig(OmegaConf.create(TEACHER))) == {"big": 1}


async def test_a_start_that_failed_is_told_to_who_asks(monkeypatch: pytest.MonkeyPatch) -> None:
    failed: Future[dict[str, Any]] = Future()
    failed.set_exception(UserError("relay.teacher: 2 GPUs are needed"))
    monkeypatch.setattr(early_teachers, "_started", failed)
    with pytest.raises(UserError, match="2 GPUs are needed"):
        await early_teachers.teachers_of(RunConfig(OmegaConf.create(TEACHER)))
