"""Teachers that the cluster has no room for."""

from collections.abc import Iterator

import pytest
from verl.plugin.platform import platform_manager

from relay_verl.errors import UserError
from relay_verl.models.launch import check_resources


@pytest.fixture(autouse=True)
def _a_platform_of_gpus(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    class Gpus:
        def ray_resource_name(self) -> str:
            return "GPU"

    monkeypatch.setattr(platform_manager, "get_platform", Gpus)
    yield


def test_more_replicas_than_gpus_is_an_error_that_counts_them() -> None:
    check_resources({"GPU": 4.0, "CPU": 1.0}, 4, "num_replicas=4 x tensor_parallel_size=1")
    for available, missing in (({"GPU": 3.0}, 1), ({"CPU": 64.0}, 4)):
        with pytest.raises(UserError, match=rf"relay.teacher: num_replicas=4 .* need 4 GPU .* add {missing}") as error:
            check_resources(available, 4, "num_replicas=4 x tensor_parallel_size=1")
        assert "\n" not in str(error.value)
