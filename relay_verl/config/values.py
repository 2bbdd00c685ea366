"""Types of values that several groups of settings share: pydantic checks what stands in them."""

from __future__ import annotations

from typing import Annotated

from pydantic import AfterValidator, ConfigDict, Field


def _check_top_k(top_k: int) -> int:
    if top_k == 0 or top_k < -1:
        raise ValueError("at least 1, or -1 for the whole vocabulary")
    return top_k


Positive = Annotated[float, Field(gt=0, allow_inf_nan=False)]
NonNegative = Annotated[float, Field(ge=0, allow_inf_nan=False)]
Count = Annotated[int, Field(ge=1, strict=True)]
Share = Annotated[float, Field(gt=0, le=1)]
TopK = Annotated[int, Field(strict=True), AfterValidator(_check_top_k)]
STRICT = ConfigDict(extra="forbid", strict=False)
"""An unknown key is an error; a number may be written as text, as Hydra may leave it."""
