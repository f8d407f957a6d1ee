"""What a GPU does with arguments that a CPU refuses, because looking at them would cost a host sync."""

from __future__ import annotations

import torch

from .operators import operators


def test_counts_of_valid_rows_are_clamped(product, g):
    maps = [torch.randn(2, 3, 8, 9, generator=g), torch.randn(2, 3, 4, 5, generator=g)]
    rois = torch.tensor([[0, 1, 1, 6, 6], [0, 2, 0, 8, 7], [1, 0, 0, 4, 5], [1, 3, 2, 9, 8]], dtype=torch.float32)
    options = ([1.0, 0.5], 2, 2, 2, False, 4.0, 1, None)

    def pooled(*valid: int) -> torch.Tensor:
        kernel = operators()["multiscale_roi_align"]
        return kernel(product["plain"], maps, rois, *options, torch.tensor(valid))

    assert torch.equal(pooled(-2, 9), pooled(0, 2))
    assert pooled(-2, 9)[2:].any()
