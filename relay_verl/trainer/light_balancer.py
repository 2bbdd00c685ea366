"""verl's balancer of requests starts in a process that imports Ray alone.

It is an actor of one small class; Ray ships its class by name, so that its process imports verl, torch and transformers
first, for seconds in which nothing else of a start can proceed.

Remove this when verl's balancer stands in a module that imports no engine.
"""

from __future__ import annotations

from typing import Any


def install(module: Any) -> None:
    """Let Ray ship the classes of verl's `module` whole."""
    from ray import cloudpickle

    cloudpickle.register_pickle_by_value(module)
