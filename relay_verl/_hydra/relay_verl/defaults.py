"""Gives Hydra the config `relay/settings`: the `relay:` node with the defaults of `relay_verl.config`.

Hydra imports this at the start of every app. `relay_verl.config` is imported when a recipe asks for the node, so that
other apps do not pay for it.
"""

from hydra.core.object_type import ObjectType
from hydra.plugins.config_source import ConfigResult, ConfigSource
from omegaconf import OmegaConf

GROUP, NAME = "relay", "settings"


class RelayDefaults(ConfigSource):
    """A source of one config."""

    @staticmethod
    def scheme() -> str:
        """The scheme of its address on the search path."""
        return "relay-defaults"

    def load_config(self, config_path: str) -> ConfigResult:
        """The node, which belongs at the top of the composed config."""
        from relay_verl.config.defaults import default_config

        return ConfigResult(
            provider=self.provider,
            path=self.full_path(),
            config=OmegaConf.create(default_config()),
            header={"package": "_global_"},
        )

    def available(self) -> bool:
        """It needs no folder."""
        return True

    def is_group(self, config_path: str) -> bool:
        """Whether this is the group of the config, or the root."""
        return config_path.strip("/") in ("", GROUP)

    def is_config(self, config_path: str) -> bool:
        """Whether this is the config."""
        return config_path.strip("/").removesuffix(".yaml") == f"{GROUP}/{NAME}"

    def list(self, config_path: str, results_filter: ObjectType | None) -> list[str]:
        """The one name in a group."""
        path = config_path.strip("/")
        if path == "" and results_filter in (None, ObjectType.GROUP):
            return [GROUP]
        return [NAME] if path == GROUP and results_filter in (None, ObjectType.CONFIG) else []
