"""Is a checkpoint whole? A save that was killed, a full disk and a damaged file all show here, before verl loads it.

A record names every file with its size; without one, verl's layout says what must be there (`fsdp_config.json` and
`data.pt` are the last that it writes). Torch's files are zip archives, whose directory stands at the end of the file;
safetensors say how long they are. So a quick check, which reads no weights, sees every file that was cut short. A byte
that changed shows only in a deep check, which compares the checksums of all that an archive holds.
"""

from __future__ import annotations

import json
import re
import zipfile
from pathlib import Path

from relay_verl.checkpoints.record import files_in, read_checkpoint
from relay_verl.errors import UserError
from relay_verl.files import read_tensor_header

POINTER_FILE = "latest_checkpointed_iteration.txt"
_STEP = re.compile(r"global_step_(\d+)")
_RANK = re.compile(r"(\w+)_world_size_(\d+)_rank_(\d+)\.pt")


def step_of(folder: Path) -> int | None:
    """N of a folder `global_step_N`; None if it is called otherwise."""
    match = _STEP.fullmatch(folder.name)
    return int(match[1]) if match else None


def find_steps(folder: Path) -> dict[int, Path]:
    """The `global_step_N` folders of a run that hold a model, the newest first.

    verl removes an old checkpoint's models and leaves the rest of its folder; that one counts no more.
    """
    steps = {step_of(path): path for path in folder.glob("global_step_*") if (path / "actor").is_dir()}
    return {step: steps[step] for step in sorted((step for step in steps if step is not None), reverse=True)}


def newest_whole(folder: Path, *, before: float = float("inf"), deep: bool = False) -> Path | None:
    """The newest whole checkpoint of a run before a step; None if there is none."""
    whole = (path for step, path in find_steps(folder).items() if step < before and not find_damage(path, deep=deep))
    return next(whole, None)


def last_saved(folder: Path) -> Path | None:
    """The checkpoint that verl says it saved last, unread; None if there is none."""
    try:
        name = f"global_step_{int((folder / POINTER_FILE).read_text())}"
    except (OSError, ValueError):
        return None
    return folder / name if (folder / name / "actor").is_dir() else None


def kept_in(folder: Path, *, can_resume: bool = True) -> str:
    """What a training that is interrupted has kept, and whether the same command continues it."""
    saved = last_saved(folder)
    if saved is None:
        return "no checkpoint was saved yet (trainer.save_freq): the same command starts at the beginning"
    return f"the last checkpoint is {saved}{': the same command resumes there' if can_resume else ''}"


def find_damage(folder: Path, *, deep: bool = False) -> str:
    """What is wrong with a `global_step_N` folder, naming the file; empty if it is whole.

    Args:
        folder: the checkpoint's.
        deep: read every byte of torch's files, which takes as long as loading them.
    """
    if not folder.is_dir():
        return f"{folder} does not exist"
    try:
        record = read_checkpoint(folder)
    except UserError as error:
        return str(error)
    if record is None:
        damage = _find_missing(folder)
        if damage:
            return damage
    else:
        for name, size in record.files.items():
            file = folder / name
            if not file.is_file():
                return f"{file} is missing"
            if file.stat().st_size != size:
                return f"{file} has {file.stat().st_size} bytes, and had {size} when it was saved"
    return next(filter(None, (_find_file_damage(file, deep) for file in files_in(folder))), "")


def _find_missing(folder: Path) -> str:
    """What of verl's layout is not there."""
    actor = folder / "actor"
    shards = {match.groups() for file in actor.glob("*.pt") if (match := _RANK.fullmatch(file.name))}
    if shards:
        needed = [folder / "data.pt", actor / "fsdp_config.json", actor / "huggingface" / "config.json"]
        for kind, world_size in sorted({(kind, int(world_size)) for kind, world_size, _ in shards} | _models(shards)):
            needed += [actor / f"{kind}_world_size_{world_size}_rank_{rank}.pt" for rank in range(world_size)]
    else:
        needed = [actor, folder / "data.pt"]
    return next((f"{path} is missing: the save did not end" for path in needed if not path.exists()), "")


def _models(shards: set[tuple[str, ...]]) -> set[tuple[str, int]]:
    """The model's own shards, which every checkpoint has."""
    return {("model", int(world_size)) for _, world_size, _ in shards}


def _find_file_damage(file: Path, deep: bool) -> str:
    try:
        if file.suffix == ".pt":
            # torch.save writes a zip archive: opening it reads its directory, and checksums find what a size does not.
            with zipfile.ZipFile(file) as archive:
                damaged = archive.testzip() if deep else None
            return f"{file} is damaged in {damaged}" if damaged else ""
        if file.suffix == ".json":
            json.loads(file.read_bytes())
        elif file.suffix == ".safetensors":
            return _find_tensor_damage(file)
    except (OSError, ValueError, zipfile.BadZipFile, EOFError, LookupError, TypeError, AttributeError) as error:
        # A file that cannot be read may be whole; a reader that stumbles over the bytes says that it is not.
        if isinstance(error, OSError) and error.strerror:
            return f"{file} cannot be read: {error.strerror}"
        return f"{file} is truncated or damaged"
    return ""


def _find_tensor_damage(file: Path) -> str:
    size = file.stat().st_size
    start, header = read_tensor_header(file)
    expected = start + max((entry["data_offsets"][1] for entry in header.values()), default=0)
    return "" if size == expected else f"{file} has {size} bytes and must have {expected}"
