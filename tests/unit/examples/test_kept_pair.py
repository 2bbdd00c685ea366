"""The pair next to the kept results: whole or not there, taken as it was, never mixed with another."""

import os
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from relay_verl.errors import UserError

EXAMPLE = Path(__file__).parents[3] / "examples" / "tiny"


@pytest.fixture(scope="module")
def kept_pair() -> Iterator[ModuleType]:
    """examples/ is not a package; this module is found by its folder."""
    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(str(EXAMPLE))
        import kept_pair

        yield kept_pair


def write_pair(module: ModuleType, folder: Path, text: str = "weights") -> Path:
    for name in module.MODELS:
        (folder / name).mkdir(parents=True)
        (folder / name / "model.safetensors").write_text(f"{text} of {name}")
        (folder / name / "config.json").write_text("{}")
    for name in module.TABLES:
        (folder / name).write_text(name)
    (folder / "warmup.parquet").write_text("not needed")
    return folder


def files_of(folder: Path) -> dict[str, str]:
    return {str(file.relative_to(folder)): file.read_text() for file in folder.rglob("*") if file.is_file()}


def test_another_machine_has_the_same_pair(kept_pair: ModuleType, tmp_path: Path) -> None:
    kept, taken = tmp_path / "keep" / "pair", tmp_path / "pair"
    assert not kept_pair.take_pair(kept, taken), "nothing is kept yet"
    kept.parent.mkdir()
    pair = write_pair(kept_pair, tmp_path / "built")
    kept_pair.keep_pair(pair, kept)
    assert kept_pair.take_pair(kept, taken)
    assert files_of(taken) == files_of(kept) == {n: t for n, t in files_of(pair).items() if n != "warmup.parquet"}
    kept_pair.keep_pair(write_pair(kept_pair, tmp_path / "later", "others"), kept)
    assert files_of(kept) == files_of(taken), "the first one stays"


def test_another_pair_is_refused_by_name(kept_pair: ModuleType, tmp_path: Path) -> None:
    write_pair(kept_pair, tmp_path / "keep" / "pair")
    other = write_pair(kept_pair, tmp_path / "pair", "other weights")
    before = files_of(other)
    with pytest.raises(UserError, match=r"--out: .*/pair/student has the SHA-256 .*expected another --out"):
        kept_pair.take_pair(tmp_path / "keep" / "pair", other)
    assert files_of(other) == before


@settings(max_examples=20, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(death=st.integers(1, 40))
def test_a_killed_copy_is_made_whole(
    kept_pair: ModuleType, tmp_path_factory: pytest.TempPathFactory, death: int
) -> None:
    folder = tmp_path_factory.mktemp("killed")
    pair, kept, taken = write_pair(kept_pair, folder / "built"), folder / "keep" / "pair", folder / "pair"
    kept.parent.mkdir()
    num_moments = 0

    class KilledError(BaseException):
        pass

    def ending(work: Callable[..., Any]) -> Callable[..., Any]:
        """`work`, before which the process may end."""

        def run(*paths: Any, **options: Any) -> Any:
            nonlocal num_moments
            num_moments += 1
            if num_moments == death:
                raise KilledError
            return work(*paths, **options)

        return run

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(os, "rename", ending(os.rename))
        patch.setattr(shutil, "copyfile", ending(shutil.copyfile))
        while True:
            try:
                kept_pair.keep_pair(pair, kept)
                kept_pair.take_pair(kept, taken)
                break
            except KilledError:
                assert not kept.exists() or files_of(kept).keys() >= {f"{n}/config.json" for n in kept_pair.MODELS}
    assert files_of(taken) == files_of(kept) == {n: t for n, t in files_of(pair).items() if n != "warmup.parquet"}
