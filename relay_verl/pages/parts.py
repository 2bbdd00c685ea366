"""Reading the files that a page is made of: its template, its styles, its scripts."""

from __future__ import annotations

from importlib.resources import files


def read_parts(package: str, *names: str) -> str:
    """The texts of files of a package, in this order."""
    folder = files(package)
    return "\n".join(folder.joinpath(name).read_text(encoding="utf-8") for name in names)
