"""How a training ends: with a single line where the cause is known."""

import pytest
from ray.exceptions import OutOfMemoryError, RayActorError, RayTaskError

from relay_verl.errors import UserError
from relay_verl.trainer.ending import line_of

PAGE = (  # as Ray 2.60 writes it
    "1 worker(s) were killed due to the node running low on memory. Memory on the node (IP: 10.0.0.7, ID: ab12) was "
    "22.51GB used / 23.45GB limit (0.960000)\nTop 10 memory users:\nPID MEM(GB) COMMAND\n77 8.80 ray::CpuVLLMHttpServer"
)


@pytest.mark.parametrize("kind", [OutOfMemoryError, lambda page: RayActorError(error_msg=page)], ids=["task", "actor"])
def test_full_memory_is_a_line_with_its_figures(kind: object) -> None:
    line = line_of(kind(PAGE))  # type: ignore[operator]
    assert line is not None and "\n" not in line
    assert "22.51 of 23.45 GB" in line and "out of memory" in line


def test_full_memory_without_figures_is_a_line_too() -> None:
    assert "out of memory" in (line_of(OutOfMemoryError("Task was killed.")) or "")


def test_errors_of_ours_say_what_they_say_also_from_a_worker() -> None:
    ours = UserError("relay.max_calls: -1")
    assert line_of(ours) == "relay.max_calls: -1"
    assert line_of(RayTaskError("f", "traceback", ours)) == "relay.max_calls: -1"


@pytest.mark.parametrize("error", [ValueError("x"), RayActorError(error_msg="The actor died.")])
def test_errors_of_others_stay_theirs(error: BaseException) -> None:
    assert line_of(error) is None
