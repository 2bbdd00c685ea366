""""""

from __future__ import annotations

from typing import Any

from relay_verl.errors import UserError


def resolve(config: Any) -> None:
    """Put the values of a composed config's interpolations into it, as they are in this process.

    Workers, those of other nodes too, may have other variables and other packages: what was checked here is what they
    get.

    Raises:
        UserError: one has no value; names the key.
    """
    from omegaconf import OmegaConf

    check_references(config)
    OmegaConf.resolve(config)


def check_references(config: Any) -> None:
    """Each interpolation of a composed config, such as `${oc.env:RELAY_STUDENT}`, has a value in this process.

    Raises:
        UserError: one has none; names the key.
    """
    from omegaconf import OmegaConf
    from omegaconf.errors import OmegaConfBaseException

    try:
        OmegaConf.to_container(config, resolve=True)
    except OmegaConfBaseException as error:
        raise UserError(f"{error.full_key}: {str(error.msg or error).splitlines()[0]}") from None
