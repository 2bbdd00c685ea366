"""A model by its address (a folder, a hub id, an endpoint or an engine), and what tells one model from another."""

from __future__ import annotations

import glob
import hashlib
from dataclasses import replace
from math import prod
from pathlib import Path

from relay_verl.config import TeacherSettings
from relay_verl.engines.factory import PREFIX
from relay_verl.errors import UserError
from relay_verl.files import read_tensor_header, sha256_of

_WEIGHTS = (".safetensors", ".bin")
ADAPTER_FILE = "adapter_config.json"
"""The file in which PEFT describes an adapter."""
ORIGIN_FILE = "relay_model.json"
"""The file in which `relay-verl models get` says that a folder is whole, and which model of the hub it is."""
_IDENTIFYING = ("config.json", "tokenizer.json", ADAPTER_FILE)
_ENDS_BYTES = 1 << 20
_OTHERS = ("config.json", "generation_config.json", "tokenizer.json", "tokenizer_config.json", "chat_template.jinja")


def is_endpoint(address: str) -> bool:
    """Whether this is an endpoint's URL."""
    return address.startswith(("http://", "https://"))


def is_engine(address: str) -> bool:
    """Whether this names an engine of another package (`relay_verl.engines.factory`)."""
    return address.startswith(PREFIX)


def is_elsewhere(address: str) -> bool:
    """Whether no model of ours runs for this address: an endpoint's URL, or an engine of another package."""
    return is_endpoint(address) or is_engine(address)


def name_of(address: str) -> str:
    """What a model in a folder or on the hub is called.

    >>> name_of("runs/relay/student/"), name_of("Qwen/Qwen3-1.7B"), bool(name_of("."))
    ('student', 'Qwen3-1.7B', True)
    """
    path = Path(address)
    return path.name if path.name not in ("", "..") else path.resolve().name


def check_folder_name(key: str, address: str) -> None:
    """vLLM finds a model's weights by a pattern that begins with the folder's name, which must not be one itself.

    Raises:
        UserError: it is one.
    """
    if not is_elsewhere(address) and glob.has_magic(address):
        raise UserError(
            f"{key}: {address}: vLLM reads '[', '*' and '?' in a folder's name as a pattern, and finds no weights: "
            "rename the folder, or give a link to it whose name has none of them"
        )


def model_at(address: str, settings: TeacherSettings, *, model: str | None = None) -> TeacherSettings:
    """The model at `address`, run as `settings` say; `model` is its name there if that is an endpoint or an engine."""
    if is_endpoint(address):
        return replace(settings, path=None, base_url=address, engine=None, model=model)
    if is_engine(address):
        engine = address.removeprefix(PREFIX)
        return replace(settings, path=None, base_url=None, engine=engine, model=model, api="completions")
    return replace(settings, path=address, base_url=None, engine=None, model=None, api="completions")


def as_student(settings: TeacherSettings, address: str, *, model: str | None = None) -> TeacherSettings:
    """The student at `address`, run as the teacher's `settings` say, but in the student's number format and asked for
    token ids."""
    return replace(model_at(address, settings, model=model), dtype=None, api="completions")


def model_sha256(address: str) -> str | None:
    """SHA-256 over the weights, the configuration and the tokenizer in a folder; None for a hub id, an endpoint or an
    engine.

    Another folder with the same files is the same model.

    Raises:
        UserError: a file cannot be read.
    """
    folder = Path(address).expanduser()
    if is_elsewhere(address) or not folder.is_dir():
        return None
    files = sorted(file for file in folder.iterdir() if file.suffix in _WEIGHTS or file.name in _OTHERS)
    return hashlib.sha256("\n".join(f"{file.name} {sha256_of(file)}" for file in files).encode()).hexdigest()


def model_identity(address: str) -> str | None:
    """A hash of a model folder's names, sizes, configuration and the ends of its weights; None for anything else.

    Cheap enough for every start: of each file it reads a mebibyte at both ends, which training changes.

    Raises:
        UserError: a file cannot be read.
    """
    folder = Path(address).expanduser()
    if not folder.is_dir():
        return None
    digest = hashlib.sha256()
    for file in sorted(folder.iterdir()):
        if file.suffix not in _WEIGHTS and file.name not in _IDENTIFYING:
            continue
        try:
            with open(file, "rb") as content:
                size = file.stat().st_size
                digest.update(f"{file.name} {size}\n".encode() + content.read(_ENDS_BYTES))
                content.seek(max(size - _ENDS_BYTES, 0))
                digest.update(content.read())
        except OSError as error:
            raise UserError(f"{file} cannot be read: {error.strerror}") from None
    return digest.hexdigest()


def config_in_cache(hub_id: str) -> Path | None:
    """The config.json of a hub id in the hub's local cache; None if it is not there."""
    from huggingface_hub import try_to_load_from_cache
    from huggingface_hub.errors import HFValidationError

    try:
        file = try_to_load_from_cache(hub_id, "config.json")
    except HFValidationError:
        return None
    return Path(file) if isinstance(file, str) else None


def count_parameters(address: str) -> int | None:
    """Parameters of a model in a folder or in the hub's cache, by the headers of its safetensors; None if unknown."""
    shapes = weight_shapes(address)
    return sum(map(prod, shapes.values())) if shapes else None


def weight_shapes(address: str) -> dict[str, list[int]] | None:
    """The shape of each weight of a model in a folder or in the hub's cache, by its name; None if unknown."""
    folder = Path(address).expanduser()
    if not folder.is_dir():
        cached = config_in_cache(address)
        if cached is None:
            return None
        folder = cached.parent
    shapes: dict[str, list[int]] = {}
    try:
        for file in folder.glob("*.safetensors"):
            shapes |= _shapes_in_file(file)
    except (OSError, ValueError, KeyError):  # whoever loads it says what is wrong
        return None
    return shapes or None


def _shapes_in_file(file: Path) -> dict[str, list[int]]:
    _, header = read_tensor_header(file)
    return {name: entry["shape"] for name, entry in header.items()}


def is_adapter(folder: Path) -> bool:
    """Whether a folder holds a PEFT adapter alone, without the model that it adapts."""
    weights = {file.name for file in folder.glob("*.*") if file.suffix in _WEIGHTS}
    return (folder / ADAPTER_FILE).is_file() and not {name for name in weights if not name.startswith("adapter_")}


IS_ADAPTER = (
    "is a LoRA adapter without its base model: give the folder of the whole model, which `relay-verl export` writes "
    "without --keep-adapter, and PEFT's merge_and_unload of any adapter"
)


HUB_DEADLINE_S = 10.0


MODEL_FILE = "config.json"
"""The file that every model on the hub has."""


TOKENIZER_FILE = "tokenizer_config.json"
"""The file that every tokenizer on the hub has."""


def is_local(path: str) -> bool:
    """Whether a model's path can only be a folder; `name` and `owner/name` may be ids on the hub."""
    return Path(path).expanduser().is_absolute() or path.startswith((".", "~")) or path.count("/") > 1


def find_file(model: str, name: str) -> Path | None:
    """A file of a model that need not have it: in its folder, on the hub or in the hub's cache; None if it has none.

    A hub that does not answer counts as none: whoever loads the model reports that.
    """
    from huggingface_hub import hf_hub_download

    folder = Path(model).expanduser()
    if is_elsewhere(model) or is_local(model) or folder.is_dir():
        return folder / name if (folder / name).is_file() else None
    try:
        return Path(hf_hub_download(model, name, etag_timeout=HUB_DEADLINE_S))
    except Exception:  # no such file, or the hub's errors, which each HTTP client has of its own
        return None


def check_model_path(key: str, path: str) -> str:
    """A local folder must exist and hold a whole model; a hub id is `check_on_hub`'s, a remote address its server's."""
    if "://" in path:
        return path
    check_folder_name(key, path)
    local = Path(path).expanduser()
    if is_adapter(local):
        raise UserError(f"{key}: {path} {IS_ADAPTER}")
    if is_local(path) and not (local / "config.json").is_file():
        what = "has no config.json" if local.is_dir() else "does not exist"
        raise UserError(f"{key}: {path} {what}; give a Hugging Face model folder or a hub id")
    return path


def check_model(key: str, path: str) -> str:
    """The model's folder, or its id on the hub or in the hub's cache, is there."""
    check_model_path(key, path)
    if "://" in path or is_local(path) or Path(path).is_dir():
        return path
    return f"{path}, {check_on_hub(key, path)}"


def check_tokenizer_path(key: str, path: str) -> str:
    """The same of a tokenizer, which may be alone in its folder or on the hub."""
    if "://" in path or Path(path).expanduser().is_dir():
        return path
    if is_local(path):
        raise UserError(f"{key}: {path} does not exist; give a folder with a tokenizer, or a hub id")
    return f"{path}, {check_on_hub(key, path, TOKENIZER_FILE)}"


def check_on_hub(key: str, name: str, file: str = MODEL_FILE) -> str:
    """A model is in the hub's cache, or the hub gives it to us; `HF_HUB_OFFLINE` is respected."""
    from huggingface_hub import constants, get_hf_file_metadata, hf_hub_url, try_to_load_from_cache
    from huggingface_hub.errors import EntryNotFoundError, GatedRepoError, RepositoryNotFoundError

    if isinstance(try_to_load_from_cache(name, file), str):
        return "in the hub's cache"
    if constants.HF_HUB_OFFLINE:
        raise UserError(
            f"{key}: {name} is not in the hub's cache, and HF_HUB_OFFLINE is set: unset it, download the model before "
            f"(`hf download {name}`), or give a folder"
        )
    url = hf_hub_url(name, file, endpoint=constants.ENDPOINT)
    try:
        get_hf_file_metadata(url, timeout=HUB_DEADLINE_S, retry_on_errors=False)
    except GatedRepoError:
        raise UserError(
            f"{key}: {name} is gated on the hub: ask for access there, and set HF_TOKEN to a token that has it"
        ) from None
    except RepositoryNotFoundError:
        raise UserError(
            f"{key}: {name} is neither a folder nor a model on the hub; if it is private, set HF_TOKEN"
        ) from None
    except EntryNotFoundError:
        raise UserError(
            f"{key}: {name} has no {file} on the hub"
            + ("; a LoRA adapter has none: give the whole model, with the adapter merged" if file == MODEL_FILE else "")
        ) from None
    except Exception as error:  # each HTTP client has its own errors
        raise UserError(
            f"{key}: {name} is not in the hub's cache, and {constants.ENDPOINT} does not answer for it "
            f"({type(error).__name__}): connect this machine, set HF_ENDPOINT to a mirror, or give a folder"
        ) from None
    return "on the hub"
