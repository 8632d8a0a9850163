"""Where networks live."""

import torch

from .processes import current

__all__ = ["resolve_device"]

KINDS = ("cpu", "cuda")  # what a network is trained on; others lack some of the operations


def resolve_device(name: str) -> torch.device:
    """Return the device that a name stands for, `"auto"` a GPU if there is one, or refuse one that is not there.

    Of several processes, each has a GPU of its own.

    Parameters
    ----------
    name
        `"auto"`, `"gpu"` (which there has to be), or what torch calls it: `"cpu"`, `"cuda"`, `"cuda:1"`.

    Raises
    ------
    ValueError
        If it is not there.
    """
    if name == "auto":
        return current().own_device(torch.device("cuda" if torch.cuda.is_available() else "cpu"))
    try:
        device = torch.device("cuda" if name == "gpu" else name)
        if device.type not in KINDS:
            raise NotImplementedError(device.type)
        torch.zeros(1, device=device).item()
    except (RuntimeError, AssertionError, NotImplementedError) as error:
        here = ["cpu"] + [f"cuda:{i}" for i in range(torch.cuda.device_count())]
        msg = f"device {name!r} is not there: this machine has {', '.join(here)}; choose one of them or 'auto'"
        raise ValueError(msg) from error
    return current().own_device(device)
