"""What the networks take for a picture."""

from __future__ import annotations

import torch


def check(network: str, picture: object) -> None:
    """Raise ``RuntimeError`` unless it is a tensor ``[3, H, W]`` of a pixel or more."""
    shape = list(picture.shape) if isinstance(picture, torch.Tensor) else type(picture).__name__
    if not isinstance(picture, torch.Tensor) or picture.dim() != 3 or len(picture) != 3 or picture.numel() == 0:
        raise RuntimeError(f"{network}: picture must be [3, H, W], of a pixel or more, got {shape}")
