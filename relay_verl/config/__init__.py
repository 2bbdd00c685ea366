"""The `relay:` node of a recipe, typed: the only place where its defaults are written. Imports neither torch nor verl.

`settings` has the node, `teacher`, `parts`, `defer_settings`, `defer_training_settings` and `price_settings` its
groups, `reading` makes them of a composed config, `validation` says what is wrong with a value, `defaults` offers the
node to Hydra. The type written next to a value checks it. May import the decoder's limits, the policies, the prices,
the rewards and what is below them. To add a key, add a field with a docstring that gives its unit and its source in the
paper: recipes and command lines can then set it.
"""

from relay_verl.config.defer_settings import DeferSettings
from relay_verl.config.defer_training_settings import DeferTrainingSettings
from relay_verl.config.parts import FilterSettings, RewardSettings, WarmupSettings
from relay_verl.config.price_settings import ModelPrices, PriceSettings
from relay_verl.config.reading import check_endpoint, read_settings
from relay_verl.config.settings import RelaySettings
from relay_verl.config.teacher import TeacherSettings, num_gpus_of

__all__ = [
    "DeferSettings",
    "DeferTrainingSettings",
    "FilterSettings",
    "ModelPrices",
    "PriceSettings",
    "RelaySettings",
    "RewardSettings",
    "TeacherSettings",
    "WarmupSettings",
    "check_endpoint",
    "num_gpus_of",
    "read_settings",
]
