"""A program of steps that is killed anywhere and run again: nothing that was finished is done again, all is there."""

import signal
import time
from multiprocessing import get_context
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from relay_verl.errors import JobError
from relay_verl.files import replace_file
from relay_verl.pipeline import StageError, Step, run_steps

NAMES = ("a", "b", "c", "d")


class KilledError(BaseException):
    """The process ends here."""


class Program:
    """Steps that write a file each, and end the process at the chosen moments."""

    def __init__(self, folder: Path, deaths: list[tuple[str, bool]]):
        self.folder = folder
        self.deaths = deaths
        self.log: list[str] = []

    def steps(self) -> list[Step]:
        return [Step(name, (self.folder / name).is_file, lambda name=name: self.write(name)) for name in NAMES]

    def write(self, name: str) -> None:
        self.log.append(name)
        self.die(name, False)
        replace_file(self.folder / name, name.encode())
        self.die(name, True)

    def die(self, name: str, is_written: bool) -> None:
        if self.deaths[:1] == [(name, is_written)]:
            self.deaths.pop(0)
            raise KilledError


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(data=st.data())
def test_a_kill_costs_at_most_the_running_step(tmp_path_factory: pytest.TempPathFactory, data: st.DataObject) -> None:
    places = st.tuples(st.sampled_from(NAMES), st.booleans())
    deaths = sorted(data.draw(st.lists(places, max_size=6)))
    program = Program(tmp_path_factory.mktemp("steps"), list(deaths))
    while True:
        try:
            assert run_steps(program.steps(), lambda _: None) == {}
        except KilledError:
            continue
        break
    assert {path.name for path in program.folder.iterdir()} == set(NAMES)
    for name in NAMES:
        num_cut = sum(place == (name, False) for place in deaths[: len(deaths) - len(program.deaths)])
        assert program.log.count(name) == 1 + num_cut, "a step runs again only if it was cut off"


def test_a_step_that_fails_is_told_and_the_others_run(tmp_path: Path) -> None:
    def fail() -> None:
        raise StageError("train ended with code 1: no memory\nlog is its log")

    def refuse() -> None:
        raise JobError("it cannot continue")

    steps = [
        Step("train", lambda: False, fail),
        Step("measure", lambda: False, refuse),
        Step("forget", lambda: False, lambda: None),
        Step("write", (tmp_path / "file").is_file, (tmp_path / "file").touch),
    ]
    told: list[str] = []
    failures = run_steps(steps, told.append)
    assert failures == {
        "train": "train ended with code 1: no memory",
        "measure": "it cannot continue",
        "forget": "it ended without its output",
    }
    assert (tmp_path / "file").is_file()
    assert told[-1] == "write"
    assert run_steps(steps, told.append).keys() == failures.keys()
    assert told.count("write") == 1, "what is done is not run again"


def test_a_bug_is_told_with_its_traceback_and_costs_its_step_alone(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    def bug() -> None:
        raise TypeError("a bug")

    steps = [Step("bug", lambda: False, bug), Step("write", (tmp_path / "file").is_file, (tmp_path / "file").touch)]
    assert run_steps(steps, lambda _: None) == {"bug": "TypeError: a bug"}
    assert (tmp_path / "file").is_file()
    assert "Traceback" in caplog.text


def work(folder: Path) -> None:
    """All steps; each notes that it began, and takes a while."""

    def write(name: str) -> None:
        with open(folder / "log", "a") as log:
            log.write(f"{name}\n")
        time.sleep(0.05)
        replace_file(folder / name, name.encode())

    names = [f"step-{number}" for number in range(12)]
    run_steps([Step(name, (folder / name).is_file, lambda name=name: write(name)) for name in names], lambda _: None)


def test_a_process_that_is_killed_continues(tmp_path: Path) -> None:
    """SIGKILL while each third step runs, of a child of this process, which need not import anything."""
    fork = get_context("fork")
    log = tmp_path / "log"
    log.touch()
    num_kills = 0
    for number in range(0, 12, 3):
        child = fork.Process(target=work, args=(tmp_path,))
        child.start()
        while child.is_alive() and f"step-{number}\n" not in log.read_text():
            time.sleep(0.005)
        child.kill()
        child.join()
        num_kills += child.exitcode == -signal.SIGKILL
    work(tmp_path)
    begun = log.read_text().split()
    assert num_kills == 4
    assert {path.name for path in tmp_path.iterdir()} == {"log", *(f"step-{number}" for number in range(12))}
    assert len(begun) <= 12 + num_kills, "each kill costs at most the step that ran"
