"""Files that are either the old one or the whole new one, whenever the process ends; and one writer at a time.

A lock is the operating system's, held by the process: one that is killed leaves none behind.
"""

from __future__ import annotations

import errno
import fcntl
import hashlib
import json
import logging
import os
import socket
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path
from typing import IO, Any

from relay_verl.errors import as_user_error

logger = logging.getLogger(__name__)

NO_LOCKS = (errno.ENOLCK, errno.ENOSYS, errno.EOPNOTSUPP, errno.EBADF, 524)
"""How network file systems without locks refuse one (524 is the kernel's own ENOTSUPP)."""


@contextmanager
def replacing(path: Path) -> Iterator[Path]:
    """Gives a temporary path to write; it becomes `path` if the block ends well. Makes the folder."""
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    try:
        yield temporary
        os.replace(temporary, path)
    finally:
        temporary.unlink(missing_ok=True)


def replace_file(path: Path, content: bytes) -> None:
    """Write `content` so that a reader sees either the old file or the whole new one; makes the folder."""
    with replacing(path) as temporary:
        temporary.write_bytes(content)


def reading(file: Path) -> AbstractContextManager[None]:
    """A block that reads `file`: an OSError in it becomes a UserError."""
    return as_user_error(OSError, lambda error: f"{file} cannot be read: {error.strerror}")


def writing(hint: str = "") -> AbstractContextManager[None]:
    """A block that writes files: an OSError in it becomes a UserError that names the file, and ends in `hint`."""
    return as_user_error(OSError, lambda error: f"{error.filename} cannot be written: {error.strerror}{hint}")


class LockedError(Exception):
    """Another process holds the lock; the message says which: `process 12 on host a`."""


def lock(file: Path) -> IO[str]:
    """Hold the lock of `file` until the result is closed or this process ends; the file says who holds it.

    Raises:
        LockedError: another process holds it.
        OSError: the file cannot be written.
    """
    held = open(file, "a+", encoding="utf-8")  # noqa: SIM115 (it stays open) and not "w", which would empty the holder's line
    try:
        fcntl.flock(held, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        held.seek(0)
        holder = held.readline().strip()
        held.close()
        raise LockedError(holder or "another process") from None
    except OSError as error:
        if error.errno not in NO_LOCKS:
            held.close()
            raise
        logger.warning(
            "%s: the file system has no locks (%s): see that no second command writes there", file, error.strerror
        )
    held.truncate(0)
    held.write(f"process {os.getpid()} on host {socket.gethostname()}\n")
    held.flush()
    return held


def sha256_of(file: Path) -> str:
    """The SHA-256 of a file, in hexadecimal. Raises UserError if it cannot be read."""
    with reading(file), open(file, "rb") as content:
        return hashlib.file_digest(content, "sha256").hexdigest()


def read_tensor_header(file: Path) -> tuple[int, dict[str, Any]]:
    """Where the tensors of a safetensors file begin, and its entry of each: type, shape and place.

    The file is 8 bytes of header length, a JSON header, and the tensors that it lists.

    Raises:
        OSError, ValueError: it cannot be read, or is cut short in its header.
    """
    with open(file, "rb") as content:
        start = 8 + int.from_bytes(content.read(8), "little")
        if start > file.stat().st_size:
            raise ValueError(f"{file} is shorter than its header")
        header = json.loads(content.read(start - 8))
    return start, {name: entry for name, entry in header.items() if name != "__metadata__"}
