"""Before a training starts: at which checkpoint it resumes, whether that is one of this run, and whether the next fits.

verl resumes at the step in `latest_checkpointed_iteration.txt`, whatever is there. A checkpoint that was cut short is
passed over here, with a warning, for the newest whole one before it, and one of another recipe or config is refused.
The weights are not read: `relay-verl doctor --deep` reads them.
"""

from __future__ import annotations

import sys
from pathlib import Path

from relay_verl.checkpoints.changes import default_keys, find_changes
from relay_verl.checkpoints.integrity import (
    POINTER_FILE,
    find_damage,
    find_steps,
    last_saved,
    newest_whole,
    step_of,
)
from relay_verl.checkpoints.record import RunRecord, name_the_launch, read_checkpoint, read_run, record_of
from relay_verl.errors import UserError
from relay_verl.run_config import VerlConfig

ON_PURPOSE = "trainer.resume_mode=resume_path trainer.resume_from_path={path} resumes there on purpose"


def check_resume(config: VerlConfig) -> None:
    """Choose the checkpoint to resume at; where verl would choose another, `trainer.resume_from_path` names it.

    Raises:
        UserError: the checkpoint is of another run, or none is whole.
    """
    if not config.trainer.get("default_local_dir"):
        return
    _expand_home(config)
    name_the_launch(config)
    mode = config.trainer.get("resume_mode", "auto")
    if mode == "auto":
        # verl would follow its pointer whatever it names, so the choice is made here and handed to verl as a path.
        choice, reason = choose_checkpoint(runs_folder(config))
        if reason:
            print(f"relay_verl: {reason}", file=sys.stderr)
        if choice is None:
            return
        _check_same_run(config, choice)
        _say_if_at_the_end(config, choice)
        # Only where verl would choose another one: its own `auto` also handles a run that has nothing yet.
        if reason:
            config.trainer.resume_mode = "resume_path"
            config.trainer.resume_from_path = str(choice)
    elif mode == "resume_path":
        _check_path(config)
    elif mode != "disable":
        raise UserError(f"trainer.resume_mode={mode}: allowed: auto, resume_path, disable")


def _expand_home(config: VerlConfig) -> None:
    """verl takes `~` for the name of a folder; our own files go into the same folder as the checkpoints."""
    folder = str(config.trainer.default_local_dir)
    if folder.startswith("~"):
        config.trainer.default_local_dir = str(Path(folder).expanduser())


def runs_folder(config: VerlConfig) -> Path:
    """`trainer.default_local_dir` as verl takes it: relative to where the command was given."""
    return Path(config.trainer.default_local_dir).absolute()


def choose_checkpoint(folder: Path, *, deep: bool = False) -> tuple[Path | None, str]:
    """The checkpoint to resume at, if any, and a warning if that is not the one that verl's pointer names.

    Args:
        folder: of the run.
        deep: read every byte of the checkpoints (`find_damage`).

    Raises:
        UserError: there were checkpoints, and none is whole.
    """
    steps = find_steps(folder)
    pointer = folder / POINTER_FILE
    # verl writes the pointer last: without it either no save was finished, or the folders were moved.
    if not pointer.exists():
        choice = newest_whole(folder, deep=deep)
        if choice is None and steps:
            newest = next(iter(steps.values()))
            return (
                None,
                f"no checkpoint was finished: {find_damage(newest, deep=deep)}; the training starts at the beginning",
            )
        return choice, f"{pointer} is missing; resuming at {choice}, the newest whole checkpoint" if choice else ""
    text = pointer.read_text(errors="replace").strip()
    # verl reads the pointer with int(), which fails on anything else and accepts digits of other scripts.
    if not (text.isascii() and text.isdigit()):
        wrong, before = f"{pointer} holds {text[:20]!r}, which is not a step", float("inf")
    else:
        named = folder / f"global_step_{int(text)}"
        wrong, before = find_damage(named, deep=deep), int(text)
        if not wrong:
            return named, ""
    # Never a newer one: it is of a save that the pointer does not count, or of steps that were given up.
    choice = newest_whole(folder, before=before, deep=deep)
    if choice is None:
        raise UserError(
            f"{wrong}, and {folder} has no other whole checkpoint to resume at: give another "
            "trainer.default_local_dir, or trainer.resume_mode=disable to start again in this one"
        )
    return choice, f"{wrong}; resuming at {choice}, the newest whole checkpoint before it"


def check_every_byte(config: VerlConfig) -> str:
    """The checkpoint that `check_resume` chose holds what was saved, by the checksums in it.

    Returns:
        The checkpoint, or that there is none.

    Raises:
        UserError: a file of it is damaged; names the newest one before it that is not.
    """
    trainer = config.trainer
    if trainer.get("resume_mode", "auto") == "disable" or not trainer.get("default_local_dir"):
        return "no checkpoint to resume at"
    named = trainer.get("resume_from_path") if trainer.resume_mode == "resume_path" else None
    checkpoint = Path(named) if named else last_saved(runs_folder(config))
    if checkpoint is None:
        return "no checkpoint to resume at"
    damage = find_damage(checkpoint, deep=True)
    if not damage:
        return str(checkpoint)
    before = newest_whole(checkpoint.parent, before=step_of(checkpoint) or 0, deep=True)
    advice = ON_PURPOSE.format(path=before) if before else "no checkpoint before it is whole"
    raise UserError(f"{damage}; {advice}")


def _check_same_run(config: VerlConfig, checkpoint: Path) -> None:
    old = _read_its_run(checkpoint)
    if old is None:
        return
    now = record_of(config)
    change = next(find_changes(old, now), None)
    if change is None:
        return
    key, then, today = change
    on_purpose = ON_PURPOSE.format(path=checkpoint)
    # Another recipe differs in many keys: the recipe is the cause, and the first key only an example of it.
    if old.recipe != now.recipe:
        raise UserError(
            f"trainer.default_local_dir: {checkpoint} is of recipe {old.recipe}, not {now.recipe} ({key} is {then} "
            f"there and {today} here): give another trainer.default_local_dir; {on_purpose}"
        )
    if key.startswith("relay.") and key not in now.config and key not in default_keys():
        raise UserError(
            f"{key}: {checkpoint} was trained with {then}, and this version of relay_verl has no such key: resume with "
            f"the version that wrote it, or give another trainer.default_local_dir; {on_purpose}"
        )
    raise UserError(
        f"{key}={today}, but {checkpoint} was trained with {then}: put it back, or give another "
        f"trainer.default_local_dir; {on_purpose}"
    )


def _check_path(config: VerlConfig) -> None:
    """A checkpoint that was named: it must be whole; what differs is said. verl reads the step off the path as it is
    given, so it gets the path that was checked."""
    checkpoint = _named_checkpoint(config)
    damage = find_damage(checkpoint)
    if damage:
        raise UserError(f"trainer.resume_from_path: {damage}")
    config.trainer.resume_from_path = str(checkpoint)
    _say_if_at_the_end(config, checkpoint)
    old = _read_its_run(checkpoint)
    for key, then, today in find_changes(old, record_of(config)) if old else ():
        print(f"relay_verl: {key}={today}, and {checkpoint} was trained with {then}", file=sys.stderr)


def _say_if_at_the_end(config: VerlConfig, checkpoint: Path) -> None:
    """A line where verl would start its engines and end without a step."""
    step, steps = step_of(checkpoint), config.trainer.get("total_training_steps")
    if step is not None and steps is not None and step >= steps:
        print(
            f"relay_verl: trainer.total_training_steps={steps}: {checkpoint} is of step {step}, and no step is left: "
            "raise it to train further",
            file=sys.stderr,
        )


def _named_checkpoint(config: VerlConfig) -> Path:
    """`trainer.resume_from_path` as an absolute path without a slash at its end."""
    path = config.trainer.get("resume_from_path")
    checkpoint = Path(str(path or "")).expanduser().absolute()
    if not path or step_of(checkpoint) is None:
        raise UserError(f"trainer.resume_from_path={path}: name a folder global_step_N")
    return checkpoint


def check_sft_resume(config: VerlConfig) -> str:
    """verl's SFT trainer finds the checkpoint that `trainer.resume_from_path` names; the config then has the path that
    was checked.

    Raises:
        UserError: it is not there, or is not the folder of a step.
    """
    mode, path = config.trainer.get("resume_mode", "auto"), config.trainer.get("resume_from_path")
    if mode not in ("auto", "resume_path", "disable"):
        raise UserError(f"trainer.resume_mode={mode}: allowed: auto, resume_path, disable")
    if mode == "disable" or (mode == "auto" and not path):
        return str(mode)
    checkpoint = _named_checkpoint(config)
    if not checkpoint.is_dir():
        raise UserError(f"trainer.resume_from_path: {checkpoint} does not exist")
    config.trainer.resume_from_path = str(checkpoint)
    return str(checkpoint)


def _read_its_run(checkpoint: Path) -> RunRecord | None:
    """The run that wrote a checkpoint; without a record, a warning."""
    record = read_checkpoint(checkpoint)
    run = record.run if record else read_run(checkpoint.parent)
    if run is None:
        print(
            f"relay_verl: {checkpoint} does not say which recipe wrote it; that it is of this run is not checked",
            file=sys.stderr,
        )
    return run
