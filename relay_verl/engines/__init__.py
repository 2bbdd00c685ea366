"""Engines that continue token ids: verl's servers, an OpenAI-compatible endpoint, a chat API, and scripts.

`base` has the protocol that the decoder asks, `resilience` the boundary at which answers are checked and deadlines
hold. To add an engine, write a class with `generate` in a file here and start it in `relay_verl.models.launch`; it need
not check or retry anything. May import `tokenization` and what is below it: no torch, ray, verl or vllm.
"""

from relay_verl.engines.base import FinishReason, Generation, TokenEngine
from relay_verl.engines.chat import ChatEngine
from relay_verl.engines.endpoint import EndpointEngine
from relay_verl.engines.resilience import GuardedEngine
from relay_verl.engines.scripted import ScriptedEngine
from relay_verl.errors import EngineError, PermanentError, TeacherError

__all__ = [
    "ChatEngine",
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
