"""verl's trainer and vLLM on CPU: the platform, and every shim for another project's version.

Chosen by `VERL_PLATFORM=cpu`, never by detection: the CPU-only head node of a GPU cluster stays what it is.
`platform` is verl's, `shims` applies the changes; a new shim says which issue of the other project removes it. May
import `config` and what is below it, torch, verl and vllm.
"""

import os

READS_WEIGHTS = "auto"
"""`load_format` of an engine that only reads its model's files, as the teacher does and all engines of evaluation."""


def is_chosen() -> bool:
    """Whether this process is told to run verl on CPU."""
    return os.environ.get("VERL_PLATFORM", "").strip().lower() == "cpu"
