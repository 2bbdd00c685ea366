"""Wheels made small enough to carry to a GPU machine that reaches no package registry.

    python examples/gpu/pack.py pack --out packed --arch 90 --without '*/_vllm_fa2_C*' wheels/*.whl
    python pack.py unpack packed --site /tmp/site           # there, with the standard library alone
    export PYTHONPATH=/tmp/site

Every wheel becomes a tar.xz of what has to be imported. A compiled CUDA library holds machine code for many
generations of GPUs; what the given one cannot run is replaced by zeros, which compress to nothing, so that vLLM's
300 MB become 25. Code that exists for other generations only is then missing, such as kernels that the driver would
translate when they are first used (`--keep-ptx` leaves those in). The result is for measurements on that one machine.
"""

from __future__ import annotations

import argparse
import compileall
import io
import lzma
import struct
import tarfile
import zipfile
from collections.abc import Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from fnmatch import fnmatch
from pathlib import Path

CONTAINER = struct.pack("<I", 0xBA55ED50)
"""What a container of GPU code begins with, in little-endian bytes."""
CONTAINER_HEADER = struct.Struct("<IHHQ")
"""Magic number, version, bytes of this header, bytes of the entries."""
ENTRY_HEADER = struct.Struct("<HHIQ")
"""Kind, version, bytes of the header, bytes of the payload."""
ARCH_OFFSET = 28
"""Where an entry's header has its generation, such as 90 for Hopper."""
PTX, MACHINE_CODE = 1, 2
LIBRARIES = ".data/purelib/", ".data/platlib/"
"""Folders of a wheel whose content belongs to the top."""


def entries_of(data: bytes | bytearray) -> Iterator[list[tuple[int, int, int, int]]]:
    """(kind, generation, start, end) of each payload of each container in a library."""
    position = 0
    while (position := data.find(CONTAINER, position)) >= 0:
        _, version, header_size, size = CONTAINER_HEADER.unpack_from(data, position)
        if version != 1 or header_size != CONTAINER_HEADER.size or position + header_size + size > len(data):
            position += len(CONTAINER)  # the number by chance
            continue
        entries, start, end = [], position + header_size, position + header_size + size
        while start < end:
            kind, _, entry_header, payload = ENTRY_HEADER.unpack_from(data, start)
            if kind not in (PTX, MACHINE_CODE):
                raise ValueError(f"unknown kind {kind} of GPU code at byte {start}")
            (generation,) = struct.unpack_from("<I", data, start + ARCH_OFFSET)
            entries.append((kind, generation, start + entry_header, start + entry_header + payload))
            start += entry_header + payload
        yield entries
        position = end


def keep_one_generation(data: bytes, generation: int, *, keep_ptx: bool = False) -> bytes:
    """A library with zeros for the code of other generations.

    Args:
        data: the library.
        generation: such as 90.
        keep_ptx: keeps the portable code of a container that has no machine code for this generation.
    """
    kept = bytearray(data)
    for entries in entries_of(data):
        has_own = any(kind == MACHINE_CODE and arch == generation for kind, arch, _, _ in entries)
        for kind, arch, start, end in entries:
            is_own = kind == MACHINE_CODE and arch == generation
            is_portable = kind == PTX and arch <= generation and keep_ptx and not has_own
            if not (is_own or is_portable):
                kept[start:end] = bytes(end - start)
    return bytes(kept)


def pack(wheel: Path, out: Path, generation: int, without: Sequence[str], keep_ptx: bool) -> Path:
    """One wheel as a tar.xz in `out`."""
    file = out / f"{wheel.name.split('-')[0]}.tar.xz"
    if file.exists():
        return file
    part = file.with_suffix(".part")
    with zipfile.ZipFile(wheel) as source, tarfile.open(part, "w:xz") as target:
        for info in source.infolist():
            name = info.filename
            if info.is_dir() or any(fnmatch(name, pattern) for pattern in without):
                continue
            for marker in LIBRARIES:
                name = name.split(marker, 1)[-1]
            data = source.read(info)
            if name.endswith(".so"):
                data = keep_one_generation(data, generation, keep_ptx=keep_ptx)
            member = tarfile.TarInfo(name)
            member.size = len(data)
            member.mode = 0o755 if info.external_attr >> 16 & 0o100 else 0o644
            target.addfile(member, io.BytesIO(data))
    part.rename(file)
    return file


def unpack(file: Path, site: Path) -> None:
    """Extract one tar.xz, unless that has been done."""
    done = site / ".unpacked" / file.name
    if done.exists():
        return
    with lzma.open(file) as stream, tarfile.open(fileobj=stream, mode="r|") as source:
        source.extractall(site, filter="data")
        names = [site / name for name in source.getnames() if name.endswith(".py")]
    # without bytecode every process that imports vLLM or verl compiles their sources anew
    for name in names:
        compileall.compile_file(name, quiet=2)
    done.parent.mkdir(parents=True, exist_ok=True)
    done.touch()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    commands = parser.add_subparsers(dest="command", required=True)
    packing = commands.add_parser("pack", help="make the files")
    packing.add_argument("wheels", type=Path, nargs="+")
    packing.add_argument("--out", type=Path, required=True, help="folder for the files")
    packing.add_argument("--arch", type=int, required=True, help="generation of the GPU: 80, 90, 100")
    packing.add_argument("--without", action="append", default=[], metavar="GLOB", help="files to leave out")
    packing.add_argument("--keep-ptx", action="store_true", help="keep portable code that has no other form")
    unpacking = commands.add_parser("unpack", help="extract them")
    unpacking.add_argument("folder", type=Path)
    unpacking.add_argument("--site", type=Path, required=True, help="folder for PYTHONPATH")
    options = parser.parse_args()
    if options.command == "pack":
        options.out.mkdir(parents=True, exist_ok=True)
        for wheel in options.wheels:
            file = pack(wheel, options.out, options.arch, options.without, options.keep_ptx)
            print(f"{file.stat().st_size / 2**20:8.2f} MiB {file.name}", flush=True)
    else:
        files = sorted(options.folder.glob("*.tar.xz"), key=lambda file: -file.stat().st_size)
        with ProcessPoolExecutor() as pool:
            list(pool.map(unpack, files, [options.site] * len(files)))


if __name__ == "__main__":
    main()
