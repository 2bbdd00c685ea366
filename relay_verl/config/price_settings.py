"""`relay.prices`: what a million tokens of each model cost, for reports and for the reward `price`."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Annotated

from pydantic import AfterValidator, Field

from relay_verl.config.values import STRICT, Count, NonNegative
from relay_verl.errors import UserError
from relay_verl.prices import Preset, PriceList, TokenPrice, find_preset

KEY = "relay.prices"


def _check_preset(name: str) -> str:
    find_preset(name)
    return name


@dataclass(frozen=True)
class ModelPrices:
    """The prices of one model, per million tokens in `relay.prices.currency`. Prices that are given here come before
    the preset's."""

    __pydantic_config__ = STRICT

    preset: Annotated[str, AfterValidator(_check_preset)] | None = None
    """Name of a published price in `relay_verl/prices/presets.yaml`."""
    input: NonNegative | None = None
    """Tokens that it reads."""
    cached_input: NonNegative | None = None
    """Tokens that it reads and its prefix cache holds; `input` if None."""
    output: NonNegative | None = None
    """Tokens that it writes."""
    num_parameters: Count | None = None
    """Parameters that a token passes through (the active ones of a mixture of experts), for FLOPs; those in the model's
    folder if None."""

    @property
    def _preset(self) -> Preset | None:
        return None if self.preset is None else find_preset(self.preset)

    @property
    def currency(self) -> str | None:
        """The preset's currency."""
        return self._preset.currency if self._preset else None

    @property
    def own_prices(self) -> dict[str, float]:
        """The prices that are given here, by key."""
        prices = {"input": self.input, "cached_input": self.cached_input, "output": self.output}
        return {key: price for key, price in prices.items() if price is not None}

    def price(self, key: str) -> TokenPrice | None:
        """The price; None if none is given.

        Args:
            key: of this group of settings, for messages.

        Raises:
            UserError: one of input and output is missing.
        """
        preset = self._preset
        if preset is None and not self.own_prices:
            return None
        base = preset.price if preset else None
        for name in ("input", "output"):
            if base is None and name not in self.own_prices:
                raise UserError(f"{key}.{name}: not given, but {', '.join(self.own_prices)} is; give input and output")
        values = vars(base) if base else {}
        if self.input is not None:  # another input price makes the preset's discount another one
            values = {**values, "cached_input": self.input}
        return TokenPrice(**{**values, **self.own_prices})


@dataclass(frozen=True)
class PriceSettings:
    """What tokens cost. Without prices, reports show tokens and FLOPs."""

    __pydantic_config__ = STRICT

    currency: Annotated[str, Field(pattern=r"^[A-Z]{3}$")] | None = None
    """Unit of the prices: three capital letters (ISO 4217), per million tokens; XXX for relative prices. The preset's
    if None."""
    student: ModelPrices = field(default_factory=ModelPrices)
    """The student's prices; without any it costs nothing."""
    teacher: ModelPrices = field(default_factory=ModelPrices)
    """The teacher's prices, the same for each of `relay.teachers`."""

    def price_list(self) -> PriceList | None:
        """The prices; None if none is given.

        Raises:
            UserError: a price has no unit, or two units, or is incomplete.
        """
        models = {f"{KEY}.student": self.student, f"{KEY}.teacher": self.teacher}
        prices = {key: model.price(key) for key, model in models.items()}
        if not any(prices.values()):
            if self.currency is not None:
                raise UserError(f"{KEY}.currency: {self.currency!r}, but no price is given")
            return None
        currency = self.currency
        for key, model in models.items():
            if model.currency is not None:
                currency = currency or model.currency
                if model.currency != currency:
                    raise UserError(
                        f"{key}.preset: {model.preset!r} is in {model.currency}, other prices are in {currency}; "
                        "give all of them in one currency"
                    )
        if currency is None:
            key, model = next((key, model) for key, model in models.items() if model.own_prices)
            name, price = next(iter(model.own_prices.items()))
            raise UserError(
                f"{key}.{name}: {price:g}: a price without a unit; set {KEY}.currency, such as USD (prices are per "
                "million tokens), or XXX for relative prices"
            )
        student, teacher = (price or TokenPrice() for price in prices.values())
        return PriceList(currency, student, teacher)
