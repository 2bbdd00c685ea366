"""What tokens cost: how many each model read and wrote for a response, at prices per million tokens. Pure.

`usage` counts tokens, `price` turns them into money and into a share of what the teacher alone would cost, `presets`
has the dated price lists of `presets.yaml`. May import `types` and what is below it. To add a preset, add an entry with
its date and its source to `presets.yaml`.
"""

from relay_verl.prices.presets import PRESETS, Preset, find_preset
from relay_verl.prices.price import PriceList, TokenPrice
from relay_verl.prices.usage import Usage, student_usage, teacher_usage

__all__ = [
    "PRESETS",
    "Preset",
    "PriceList",
    "TokenPrice",
    "Usage",
    "find_preset",
    "student_usage",
    "teacher_usage",
]
