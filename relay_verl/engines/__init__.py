"""Engines that continue token ids: verl's servers, an OpenAI-compatible endpoint, and scripts."""

from relay_verl.engines.base import FinishReason, Generation, TokenEngine
from relay_verl.engines.endpoint import EndpointEngine
from relay_verl.engines.resilience import GuardedEngine
from relay_verl.engines.scripted import ScriptedEngine
from relay_verl.errors import EngineError, PermanentError, TeacherError

__all__ = [
    "EndpointEngine",
    "EngineError",
    "FinishReason",
    "Generation",
    "GuardedEngine",
    "PermanentError",
    "ScriptedEngine",
    "TeacherError",
    "TokenEngine",
]
