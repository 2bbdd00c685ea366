"""What vLLM loads in each of its processes (entry point `vllm.general_plugins`): the names of the classes with a head.

vLLM imports the classes themselves where a model asks for one.
"""

from __future__ import annotations

from relay_verl.defer.engine_head import ARCHITECTURES, PREFIX

MODULE = "relay_verl.defer.vllm_models"


def register() -> None:
    """Name the classes; a second call does nothing."""
    from vllm import ModelRegistry

    known = ModelRegistry.get_supported_archs()
    for architecture in ARCHITECTURES:
        name = PREFIX + architecture
        if name not in known:
            ModelRegistry.register_model(name, f"{MODULE}:{name}")
