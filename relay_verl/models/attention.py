"""Which attention the trained model computes with: flash-attn where it is installed, torch's own (sdpa) elsewhere.

verl asks for `flash_attention_2` whether or not the package is there, and flash-attn cannot be a requirement: it has no
wheels, and its build needs a torch that is already installed. So the recipes write `${relay_attention:}`, which is
resolved in the driver (GRPO) or in each rank (SFT): all nodes need the same packages, as they do for the rest.

Invariant: the numbers trained on are the same. With `use_remove_padding` verl packs sequences into one row and gives
their position ids; flash-attn and, by a mask, transformers' sdpa both keep them apart. Only time and memory differ.
"""

from relay_verl.versions import is_installed

FLASH = "flash_attention_2"
SDPA = "sdpa"
RESOLVER = "relay_attention"


def installed_attention() -> str:
    """`flash_attention_2` if flash-attn is installed, else `sdpa`."""
    return FLASH if is_installed("flash_attn") else SDPA


def register_resolver() -> None:
    """Let OmegaConf resolve `${relay_attention:}`; a second call does nothing."""
    from omegaconf import OmegaConf

    OmegaConf.register_new_resolver(RESOLVER, installed_attention, replace=True)
