"""Where to compute."""

import torch

_DEVICES = ("cpu", "cuda", "mps", "xpu")


def pick_device(name: str, option: str = "device") -> str:
    """Check a device's name; `auto` picks one.

    Args:
        name: such as `cuda:1`.
        option: what a message calls it.

    Raises:
        ValueError: there is no such device.
    """
    if name == "auto":
        if torch.cuda.is_available():
            return "cuda"
        return "mps" if torch.backends.mps.is_available() else "cpu"
    if name.partition(":")[0] not in _DEVICES:
        raise ValueError(f"{option} {name} is not known; give auto, {', '.join(_DEVICES)}")
    try:
        torch.empty(1, device=name)
    except (RuntimeError, AssertionError) as error:
        text = str(error).splitlines()[0].partition(". ")[0]
        raise ValueError(f"{option} {name} cannot be used here: {text}") from None
    return name
