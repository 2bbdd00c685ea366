"""The call warm-up's data as verl's SFT trainer reads it: `data.custom_cls` of the warm-up recipes (paper 3.1).

The ids are fed as they were sampled: no chat template, no tokenizer.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
import torch
from torch.utils.data import Dataset

from relay_verl.errors import UserError
from relay_verl.run_config import VerlConfig

COLUMNS = ("input_ids", "loss_mask", "is_finished")


class WarmupDataset(Dataset):
    """Rows of `relay-verl warmup-data`, less those cut off by the length limit.

    Args:
        parquet_files: one file or several.
        config: verl's `data` node; `max_length` bounds a row, `truncation` says what becomes of a longer one.
        max_samples: most rows; -1 for all.

    Raises:
        UserError: a file that is not warm-up data, an unknown `truncation`, or no row left.
    """

    def __init__(
        self,
        parquet_files: Any,
        tokenizer: Any,
        config: VerlConfig,
        processor: Any = None,
        max_samples: int = -1,
        **_: Any,
    ):
        files = [parquet_files] if isinstance(parquet_files, str) else list(parquet_files)
        self.files = files
        if config.truncation not in ("right", "error"):
            raise UserError(f"data.truncation={config.truncation}: allowed: right, error")
        rows = pa.concat_tables([_read(Path(name).expanduser()) for name in files])
        self._rows = rows.slice(0, max_samples if max_samples >= 0 else None).combine_chunks()
        self._max_length = int(config.max_length)
        if not len(self._rows):
            raise UserError(f"data.train_files: {', '.join(files)}: no finished response")
        longest = pc.max(pc.list_value_length(self._rows["input_ids"])).as_py()
        if config.truncation == "error" and longest > self._max_length:
            raise UserError(f"data.max_length={self._max_length}: {', '.join(files)}: a row has {longest} tokens")

    def __len__(self) -> int:
        return len(self._rows)

    def __getitem__(self, index: int) -> dict[str, torch.Tensor]:
        """Tensors of one row, each [length]."""
        input_ids, loss_mask = (
            torch.tensor(self._rows[name][index].as_py()[: self._max_length]) for name in ("input_ids", "loss_mask")
        )
        return {"input_ids": input_ids, "position_ids": torch.arange(len(input_ids)), "loss_mask": loss_mask}


def _read(path: Path) -> pa.Table:
    """The rows of a file whose response ended by itself."""
    try:
        missing = [name for name in COLUMNS if name not in pq.read_schema(path).names]
    except (OSError, ValueError) as error:
        raise UserError(f"data.train_files: {path}: {str(error).splitlines()[0]}") from None
    if missing:
        raise UserError(f"data.train_files: {path} is not warm-up data: no column {', '.join(missing)}")
    rows = pq.read_table(path, columns=list(COLUMNS))
    return rows.filter(rows["is_finished"]).drop_columns("is_finished")
