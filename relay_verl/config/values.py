"""Types of values that several groups of settings share: pydantic checks what stands in them."""

from __future__ import annotations

from typing import Annotated

from pydantic import ConfigDict, Field

Positive = Annotated[float, Field(gt=0, allow_inf_nan=False)]
NonNegative = Annotated[float, Field(ge=0, allow_inf_nan=False)]
Count = Annotated[int, Field(ge=1, strict=True)]
STRICT = ConfigDict(extra="forbid", strict=False)
"""An unknown key is an error; a number may be written as text, as Hydra may leave it."""
