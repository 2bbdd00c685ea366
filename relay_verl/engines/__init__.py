"""Engines that continue token ids: verl's servers, an OpenAI-compatible endpoint, a chat API, and scripts.

`base` has the protocol that the decoder asks; `boundary` checks answers and holds deadlines; `resilience` tries again.
To add an engine, write a class with `generate` in a file here, and `stream` if it can, and start it in
`relay_verl.models.launch`; it need not check or retry anything. May import `tokenization` and what is below it: no ray,
verl or vllm, and torch only while `transformers_engine` has a model to run.
"""

from relay_verl.engines.base import Billed, FinishReason, Generation, StreamingEngine, TokenEngine
from relay_verl.engines.chat import ChatEngine
from relay_verl.engines.endpoint import EndpointEngine
from relay_verl.engines.resilience import GuardedEngine
from relay_verl.engines.scripted import ScriptedEngine
from relay_verl.engines.transformers_engine import TransformersEngine
from relay_verl.errors import EngineError, PermanentError, TeacherError

__all__ = [
    "Billed",
    "ChatEngine",
    "EndpointEngine",
    "EngineError",
    "FinishReason",
    "Generation",
    "GuardedEngine",
    "PermanentError",
    "ScriptedEngine",
    "StreamingEngine",
    "TeacherError",
    "TokenEngine",
    "TransformersEngine",
]
