"""Where a model runs when nobody says, and how training is sped up there."""

import os

import torch


def default_device() -> str:
    """CUDA where there is a card to keep; a host that lends one call by call (ZeroGPU) counts as none."""
    lent = os.environ.get("SPACES_ZERO_GPU", "").lower() in ("1", "true")
    return "cuda" if torch.cuda.is_available() and not lent else "cpu"


def sped_up(device: str) -> torch.autocast:
    """A block computing in bfloat16 where the device can; a CPU that only imitates it takes ten times as long."""
    mkldnn = torch.backends.mkldnn.is_available() and torch.ops.mkldnn._is_mkldnn_bf16_supported()
    return torch.autocast(device, torch.bfloat16, enabled=device != "cpu" or mkldnn)
