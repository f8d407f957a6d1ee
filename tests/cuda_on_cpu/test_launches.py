"""Kernels that a call starts: as many as ``structops gpu-cost`` says."""

from __future__ import annotations

import pytest
import torch

from structops import ops
from structops.bench.gpu_cost import geometry, kernels
from structops.bench.gpu_cost.kernels import Call
from structops.testing.workloads import multiscale_roi_align, ps_roi_align, roi_align

from .operators import emulated

ONE = roi_align.Shape("", 4, 8, 3, 12, 16, 4, smallest=8, largest=40)
LEVELS = multiscale_roi_align.Shape("", 4, 3, channels=8, height=64, width=96, largest=60)
CLASSES = ps_roi_align.Shape("", 4, 2, 3, height=8, width=12, smallest=32, largest=100)


def started(emulator, run, x: list[torch.Tensor]) -> tuple[int, int]:
    """Launches of the forward, and of the backward."""
    x = [t.requires_grad_() for t in x]
    with emulated(emulator):
        before = emulator.launches
        output = run(x)
        between = emulator.launches
        torch.autograd.grad(output.sum(), x)
        return between - before, emulator.launches - between


@pytest.mark.parametrize("layout", ["nhwc", "nchw"])
def test_as_many_as_counted(product, layout, g):
    emulator, call = product["plain"], Call(8, torch.float32, layout == "nhwc")

    def maps(*sizes: tuple[int, int], channels: int = 8) -> list[torch.Tensor]:
        return [torch.randn(1, channels, *s).to(memory_format=roi_align.LAYOUTS[layout]) for s in sizes]

    rois = ONE.rois_tensor(g)
    m = geometry.align_map(ONE, rois)
    forward, backward = started(emulator, lambda x: ops.roi_align(x[0], rois, 3, 0.25, 2), maps((12, 16)))
    assert forward == len([kernels.tabled_forward([m], call, "", True)])
    assert backward == len(kernels.align_backward([m], call, ""))

    forward, backward = started(emulator, lambda x: ops.roi_pool(x[0], rois, 3, 0.25), maps((12, 16)))
    assert forward == 2 * len([kernels.tabled_forward([m], call, "", False)])  # its binding runs it without argmax too
    assert backward == len(kernels.pool_backward(m, call))

    boxes = LEVELS.boxes(g)
    levels = geometry.pyramid_maps(LEVELS, torch.cat([torch.zeros(4, 1), boxes[0]], 1))
    x = maps((16, 24), (8, 12), (4, 6), (2, 3))
    scales = multiscale_roi_align.SCALES
    forward, backward = started(emulator, lambda x: ops.multiscale_roi_align(x, boxes, 3, scales), x)
    assert forward == len([kernels.tabled_forward(levels, call, "", True)])
    assert backward == len(kernels.align_backward(levels, call, ""))

    rois = CLASSES.rois_tensor(g)
    m, call = geometry.ps_map(ps_roi_align.ALIGN, CLASSES, rois), Call(18, torch.float32, call.channels_last)
    forward, backward = started(
        emulator, lambda x: ops.ps_roi_align(x[0], rois, 3, 1 / 16, 2), maps((8, 12), channels=18)
    )
    assert forward == len(kernels.ps_forward(m, call))
    assert backward == len(kernels.ps_backward(m, call))
