"""Wheels that are made small for one GPU: what is kept of a CUDA library, and what comes out at the other end."""

import struct
import subprocess
import sys
import zipfile
from pathlib import Path

from hypothesis import given
from hypothesis import strategies as st

from tests.helpers.gpu_example import FOLDER, script

pack = script("pack")
Code = tuple[int, int, bytes]

GENERATIONS = st.sampled_from([75, 80, 90, 100])
PAYLOADS = st.binary(min_size=1, max_size=12).filter(lambda payload: any(payload) and pack.CONTAINER not in payload)
ENTRIES = st.lists(st.tuples(st.sampled_from([pack.PTX, pack.MACHINE_CODE]), GENERATIONS, PAYLOADS), max_size=4)


def container(entries: list[Code]) -> bytes:
    """A container as the CUDA compiler writes it."""
    body = b"".join(
        pack.ENTRY_HEADER.pack(kind, 1, 64, len(payload)).ljust(pack.ARCH_OFFSET, b"\0")
        + struct.pack("<I", generation).ljust(64 - pack.ARCH_OFFSET, b"\1")
        + payload
        for kind, generation, payload in entries
    )
    return bytes(pack.CONTAINER_HEADER.pack(0xBA55ED50, 1, 16, len(body))) + body


def payloads(library: bytes) -> list[list[Code]]:
    return [
        [(kind, generation, library[start:end]) for kind, generation, start, end in entries]
        for entries in pack.entries_of(library)
    ]


@given(
    st.lists(ENTRIES, max_size=3), st.binary(max_size=9).filter(lambda data: pack.CONTAINER not in data), st.booleans()
)
def test_only_the_code_of_one_generation_is_left(containers: list[list[Code]], other: bytes, keep_ptx: bool) -> None:
    library = other.join([b"\x7fELF", *map(container, containers), b""])
    kept = pack.keep_one_generation(library, 90, keep_ptx=keep_ptx)
    assert len(kept) == len(library)
    for before, after in zip(payloads(library), payloads(kept), strict=True):
        has_own = any(kind == pack.MACHINE_CODE and generation == 90 for kind, generation, _ in before)
        for (kind, generation, payload), left in zip(before, after, strict=True):
            is_own = kind == pack.MACHINE_CODE and generation == 90
            is_portable = keep_ptx and not has_own and kind == pack.PTX and generation <= 90
            expected = payload if is_own or is_portable else bytes(len(payload))
            assert left == (kind, generation, expected)
    assert pack.keep_one_generation(kept, 90, keep_ptx=keep_ptx) == kept


def test_a_wheel_arrives_without_what_is_left_out(tmp_path: Path) -> None:
    library = container([(pack.MACHINE_CODE, 80, b"ampere"), (pack.MACHINE_CODE, 90, b"hopper")])
    with zipfile.ZipFile(tmp_path / "thing-1.0-py3-none-any.whl", "w") as wheel:
        wheel.writestr("thing/__init__.py", "ANSWER = 42\n")
        wheel.writestr("thing/kernels.so", library)
        wheel.writestr("thing/large.so", library)
        wheel.writestr("thing-1.0.data/purelib/other.py", "")
    command = [sys.executable, str(FOLDER / "pack.py")]
    packing = ["pack", "--out", "packed", "--arch", "90", "--without", "*/large*", "thing-1.0-py3-none-any.whl"]
    for arguments in (packing, ["unpack", "packed", "--site", "site"], ["unpack", "packed", "--site", "site"]):
        subprocess.run([*command, *arguments], check=True, cwd=tmp_path, capture_output=True)
    site = tmp_path / "site"
    assert {file.relative_to(site).as_posix() for file in site.rglob("*.[ps]*") if file.is_file()} >= {
        "thing/__init__.py",
        "thing/kernels.so",
        "other.py",
    }
    assert not (site / "thing" / "large.so").exists()
    kernels = (site / "thing" / "kernels.so").read_bytes()
    assert b"hopper" in kernels
    assert b"ampere" not in kernels
