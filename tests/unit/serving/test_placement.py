"""What each model's server computes with."""

from collections.abc import Mapping

import pytest
from hypothesis import given
from hypothesis import strategies as st

from relay_verl.errors import UserError
from relay_verl.serving.placement import (
    CPU_CACHE_BYTES,
    GPU_SHARE,
    Gpu,
    PlacedModel,
    place_on_cpu,
    place_on_gpus,
    share_a_gpu,
    visible_gpus,
)

GB = 1e9
LISTED = "0, GPU-aa, 81559, 81000\n1, GPU-bb, 81559, 20\n"


def gpus(*sizes: float, free: float = 1.0) -> list[Gpu]:
    return [Gpu(str(index), size * GB, free * size * GB) for index, size in enumerate(sizes)]


def pair(student: float, teacher: float, named: Mapping[str, tuple[str, ...]] = {}) -> list[PlacedModel]:
    sizes = {"student": student, "teacher": teacher}
    return [PlacedModel(role, size * GB, named.get(role, ())) for role, size in sizes.items()]


@given(st.floats(0.1, 60), st.floats(0.1, 60), st.floats(8, 192))
def test_two_models_on_one_gpu_have_room_for_their_weights_or_are_refused(
    student: float, teacher: float, size: float
) -> None:
    try:
        places = place_on_gpus(pair(student, teacher), gpus(size))
    except UserError:
        assert student + teacher >= GPU_SHARE * size * 0.999
        return
    shares = {role: place.memory_share or 0 for role, place in places.items()}
    assert sum(shares.values()) <= GPU_SHARE + 1e-9
    assert shares["student"] * size > student
    assert shares["teacher"] * size > teacher
    assert share_a_gpu(places)


@pytest.mark.parametrize(
    ("named", "num_gpus", "places"),
    [
        ({}, 1, ["0", "0"]),
        ({}, 2, ["0", "1"]),
        ({}, 8, ["0", "1"]),
        ({"teacher": ("0", "1")}, 4, ["2", "0,1"]),
        ({"teacher": ("1",)}, 2, ["0", "1"]),
        ({"student": ("1",), "teacher": ("2", "3")}, 4, ["1", "2,3"]),
    ],
)
def test_each_model_has_gpus_of_its_own_where_there_are_enough(
    named: dict[str, tuple[str, ...]], num_gpus: int, places: list[str]
) -> None:
    placed = place_on_gpus(pair(3, 16, named), gpus(*[80] * num_gpus))
    assert [",".join(place.gpus) for place in placed.values()] == places
    assert share_a_gpu(placed) == (num_gpus == 1)
    assert not any(place.is_cpu for place in placed.values())


def test_a_model_that_is_split_needs_its_part_on_each_gpu() -> None:
    placed = place_on_gpus(pair(3, 130, {"teacher": ("1", "2")}), gpus(80, 80, 80))
    assert placed["teacher"].memory_share == pytest.approx(GPU_SHARE)
    with pytest.raises(UserError, match="teacher"):
        place_on_gpus(pair(3, 130, {"teacher": ("1",)}), gpus(80, 80, 80))


@pytest.mark.parametrize(
    ("models", "machine", "named"),
    [
        (pair(3, 16, {"teacher": ("7",)}), gpus(80), "--teacher-gpus: 7"),
        (pair(3, 100), gpus(80, 80), "GPU 1"),
        (pair(3, 16), gpus(80, free=0.3), "are free"),
    ],
)
def test_what_does_not_fit_is_refused(models: list[PlacedModel], machine: list[Gpu], named: str) -> None:
    with pytest.raises(UserError, match=named):
        place_on_gpus(models, machine)


@pytest.mark.parametrize(
    ("visible", "names"),
    [(None, ["0", "1"]), ("1", ["1"]), ("1,0", ["1", "0"]), ("GPU-bb", ["GPU-bb"]), ("", []), ("9", [])],
)
def test_gpus_are_named_as_cuda_visible_devices_names_them(visible: str | None, names: list[str]) -> None:
    assert [gpu.index for gpu in visible_gpus(LISTED, visible)] == names


def test_on_cpu_the_models_split_the_cores(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("relay_verl.cpu.threads.num_cores", lambda: 8)
    both, alone = place_on_cpu(pair(1, 1)), place_on_cpu(pair(1, 1)[:1], 1 << 28)
    assert [place.num_threads for place in both.values()] == [4, 4]
    assert alone["student"].num_threads == 8
    assert (both["student"].cache_bytes, alone["student"].cache_bytes) == (CPU_CACHE_BYTES, 1 << 28)
    assert both["student"].is_cpu
