"""The training set as the filter leaves it: `data.custom_cls` of every relay recipe (paper 3.2.2).

The threshold is applied as the data is read, so that one pass of `relay-verl filter` serves any. A file without pass
counts, such as a validation set, is read whole.
"""

from __future__ import annotations

import glob
import os
from typing import Any

from verl.utils.dataset.rl_dataset import RLHFDataset

from relay_verl.data.pass_counts import COLUMN, solvable_rows
from relay_verl.errors import UserError


class TeacherSolvableDataset(RLHFDataset):
    """verl's dataset, less the queries whose pass rate is below `data.min_pass_rate`."""

    def _read_files_and_tokenize(self) -> None:
        """verl's reading of the files, whose names `datasets` takes for patterns: a folder may be called `relay [2]`.

        Raises:
            UserError: a name that `datasets` cannot read.
        """
        for file in map(str, self.data_files):
            if "::" in file and os.path.exists(file):
                raise UserError(f"data: {file}: '::' in a path is read as a chain of archives; rename the folder")
        self.data_files: list[str] = [
            glob.escape(file) if os.path.exists(file) else file for file in map(str, self.data_files)
        ]
        super()._read_files_and_tokenize()

    def maybe_filter_out_long_prompts(self, dataframe: Any = None) -> Any:
        """verl's hook on the rows it has read.

        Raises:
            UserError: a query is open at this threshold, or none is left.
        """
        return super().maybe_filter_out_long_prompts(self._keep_solvable(dataframe))

    def _keep_solvable(self, dataframe: Any) -> Any:
        min_pass_rate = float(self.config.get("min_pass_rate", 0.0))
        if not min_pass_rate or COLUMN not in dataframe.column_names:
            return dataframe
        try:
            kept = solvable_rows(dataframe[COLUMN], min_pass_rate)
        except ValueError as error:
            files = ", ".join(map(str, self.original_data_files))
            raise UserError(f"data.min_pass_rate={min_pass_rate}: {files}: {error}") from None
        print(f"teacher-solvable at a pass rate of {min_pass_rate}: {len(kept)} of {len(dataframe)} queries")
        return dataframe.select(kept)
