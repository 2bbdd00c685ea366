"""A real transfer queue, for tests of what workers put into it and the trainer takes out of it."""

from collections.abc import Iterator

import pytest
import ray
import transfer_queue as tq
from hydra import compose, initialize_config_module


@pytest.fixture(scope="module")
def queue() -> Iterator[None]:
    with initialize_config_module("verl.trainer.config", version_base=None):
        config = compose("ppo_trainer", overrides=["+recipe=relay_tiny"]).transfer_queue
    ray.init(address="local", num_cpus=8, include_dashboard=False, log_to_driver=False)
    tq.init(config)
    yield
    tq.close()
    ray.shutdown()
