"""How a training ends: with a single line where the cause is known."""

import pytest
from ray.exceptions import OutOfMemoryError, RayActorError, RayTaskError

from relay_verl.config import ConfigError
from relay_verl.ending import line_of

PAGE = (
    "Task was killed due to the node running low on memory.\nMemory on the node (IP: 10.0.0.7, ID: ab12) where the "
    "task (actor ID: cd34, name=CpuVLLMHttpServer, pid=77) was running was 22.51GB / 23.45GB (0.96), which exceeds "
    "the memory usage threshold of 0.95. Ray killed this worker (ID: ef56) because it was the most recently scheduled "
    "task; to see more information about memory usage on this node, use `ray logs raylet.out -ip 10.0.0.7`."
)


@pytest.mark.parametrize("kind", [OutOfMemoryError, lambda page: RayActorError(error_msg=page)], ids=["task", "actor"])
def test_full_memory_is_a_line_with_its_figures(kind: object) -> None:
    line = line_of(kind(PAGE))  # type: ignore[operator]
    assert line is not None and "\n" not in line
    assert "22.51GB of 23.45GB" in line and "out of memory" in line


def test_full_memory_without_figures_is_a_line_too() -> None:
    assert "out of memory" in (line_of(OutOfMemoryError("Task was killed.")) or "")


def test_errors_of_ours_say_what_they_say_also_from_a_worker() -> None:
    ours = ConfigError("relay.max_calls: -1")
    assert line_of(ours) == "relay.max_calls: -1"
    assert line_of(RayTaskError("f", "traceback", ours)) == "relay.max_calls: -1"


@pytest.mark.parametrize("error", [ValueError("x"), RayActorError(error_msg="The actor died.")])
def test_errors_of_others_stay_theirs(error: BaseException) -> None:
    assert line_of(error) is None
