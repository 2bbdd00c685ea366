"""Engines that continue token ids: verl's servers, an OpenAI-compatible endpoint, and scripts.

`base` is the protocol. To add an engine, write a class with its `generate` in a file here; `relay_verl.models.launch`
picks one for a model's address. May import `tokenization`, `messages` and what is below them.
"""

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
