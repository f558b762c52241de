"""Which device to compute on."""

import torch

from qtopt.errors import ConfigError


def resolve_device(name: str) -> str:
    """Returns ``name``, or for ``auto`` the GPU if there is one, else the CPU.

    Raises:
        ConfigError: a GPU is asked for that is not there, or the name is none of torch's.
    """
    if name == "auto":
        return "cuda" if torch.cuda.is_available() else "cpu"
    try:
        kind = torch.device(name).type
    except RuntimeError as error:
        raise ConfigError(f"device is {name!r}, expected auto, cpu, cuda or cuda:N") from error
    if kind == "cuda" and not torch.cuda.is_available():
        raise ConfigError(f"device is {name!r}, but torch sees no GPU here; use auto or cpu")
    return name
