"""The files that Hydra leaves of a run, `.hydra/config.yaml` and its siblings, without the secrets of a command line.

Hydra writes them before any code of ours runs, as they were typed: interpolations stay interpolations, so a key that
comes by `${oc.env:...}` is not in them; one that was typed is.
"""

from __future__ import annotations

from pathlib import Path

from relay_verl.files import replace_file
from relay_verl.run_config import VerlConfig
from relay_verl.secrets import hide_in_text, secrets_in


def hide_secrets(config: VerlConfig) -> None:
    """Take the secrets of this run's command line out of what Hydra wrote of it. Outside a Hydra app nothing happens.

    Args:
        config: the composed config of the running app.
    """
    from hydra.core.hydra_config import HydraConfig

    if not HydraConfig.initialized():
        return
    hydra = HydraConfig.get()
    if hydra.output_subdir is None:
        return
    values = secrets_in(config)
    for file in Path(hydra.runtime.output_dir, hydra.output_subdir).glob("*.yaml"):
        text = file.read_text(encoding="utf-8")
        hidden = hide_in_text(text, values)
        if hidden != text:
            replace_file(file, hidden.encode())
