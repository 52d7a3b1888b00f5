"""Where a model runs when nobody says."""

import os

import torch


def default_device() -> str:
    """CUDA where there is a card to keep; a host that lends one call by call (ZeroGPU) counts as none."""
    lent = os.environ.get("SPACES_ZERO_GPU", "").lower() in ("1", "true")
    return "cuda" if torch.cuda.is_available() and not lent else "cpu"
