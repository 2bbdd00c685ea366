"""What verl loads (entry point `verl.plugins`): importing this module registers everything, once.

verl imports it in the driver and in every Ray worker, and reports a plugin that fails at DEBUG only; this one says it
on standard error.
"""

from __future__ import annotations

import importlib.metadata
import sys

TESTED_VERL = ("0.9.1",)


def _register() -> None:
    from relay_verl import cpu

    version = importlib.metadata.version("verl")
    if version not in TESTED_VERL:
        print(
            f"relay_verl: verl {version} is not tested with it; tested: {', '.join(TESTED_VERL)}",
            file=sys.stderr,
        )
    if cpu.is_chosen():
        from relay_verl.cpu import platform, shims  # noqa: F401 (importing the platform registers it)

        shims.apply()
    from relay_verl import preflight

    preflight.install()
    from relay_verl import reward_manager, rollout  # noqa: F401 (importing them registers them)


try:
    _register()
except Exception as error:
    print(f"relay_verl: the plugin failed to load: {type(error).__name__}: {error}", file=sys.stderr)
    raise
