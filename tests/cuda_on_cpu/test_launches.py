"""Kernels that a call starts, and what these do: as much as ``structops gpu-cost`` says."""

from __future__ import annotations

import dataclasses

import pytest
import torch

from structops import ops
from structops.bench.gpu_cost import conv, conv_geometry, geometry, kernels
from structops.bench.gpu_cost.conv_geometry import Layer
from structops.bench.gpu_cost.kernels import Call
from structops.testing.workloads import multiscale_roi_align, ps_roi_align, roi_align

from .bindings.conv_transpose2d import MULTIPROCESSORS
from .operators import emulated

ONE = roi_align.Shape("", 4, 8, 3, 12, 16, 4, smallest=8, largest=40)
LEVELS = multiscale_roi_align.Shape("", 4, 3, channels=8, height=64, width=96, largest=60)
CLASSES = ps_roi_align.Shape("", 4, 2, 3, height=8, width=12, smallest=32, largest=100)


def started(emulator, run, x: list[torch.Tensor]) -> tuple[int, int]:
    """Launches of the forward, and of the backward."""
    x = [t.requires_grad_() for t in x]
    with emulated(emulator):
        before = emulator.counts["launches"]
        output = run(x)
        between = emulator.counts["launches"]
        torch.autograd.grad(output.sum(), x)
        return between - before, emulator.counts["launches"] - between


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


# Joined phases and phases by themselves, padding, channels that are not whole packs, groups, more than a tile of each.
LAYERS = {
    "two by two": Layer(2, 1, 40, 72, 9, 8, 2, 2, 0, torch.bfloat16, True),
    "padded": Layer(1, 1, 24, 64, 7, 6, 4, 2, 1, torch.bfloat16, True),
    "phases of two lengths": Layer(1, 1, 8, 12, 5, 4, 3, 2, 1, torch.bfloat16, True),
    "few channels": Layer(1, 1, 5, 3, 6, 7, 8, 4, 2, torch.bfloat16, True),
    "groups": Layer(1, 2, 8, 16, 4, 5, 3, 2, 0, torch.bfloat16, True),
    "floats": Layer(1, 1, 20, 33, 5, 6, 2, 2, 0, torch.float32, True),
}
STEPS = ("products", "copies", "copied")


def done(emulator, run) -> dict[str, int]:
    with emulated(emulator):
        before = emulator.counts.copy()
        run()
        return {name: emulator.counts[name] - before[name] for name in ("launches", *STEPS)}


def wanted(launches: list, tiles: conv_geometry.Tiles) -> dict[str, int]:
    products = tiles.products if tiles.layer.dtype.itemsize == 2 else 0
    return {"launches": len(launches), "products": products, "copies": tiles.copies, "copied": tiles.chunks}


@pytest.mark.parametrize("last", [True, False], ids=["nhwc", "nchw"])
@pytest.mark.parametrize("layer", LAYERS.values(), ids=LAYERS)
def test_convolutions_multiply_and_copy_as_much_as_counted(product, layer, last, g):
    emulator, layer = product["plain"], dataclasses.replace(layer, channels_last=last)
    layout = torch.channels_last if last else torch.contiguous_format

    def tensor(*size: int) -> torch.Tensor:
        return torch.randn(*size, generator=g).to(layer.dtype).contiguous(memory_format=layout)

    x = tensor(layer.batch, layer.groups * layer.inputs, layer.height, layer.width)
    weight = tensor(layer.groups * layer.inputs, layer.outputs, layer.kernel, layer.kernel)
    y = tensor(layer.batch, layer.groups * layer.outputs, *layer.size(conv_geometry.OUTPUT))
    steps = [layer.stride] * 2, [layer.padding] * 2
    ones = [1, 1]

    forward = done(
        emulator,
        lambda: ops.conv_transpose2d(x, weight, None, layer.stride, layer.padding, groups=layer.groups),
    )
    tiles = conv_geometry.gather(layer, MULTIPROCESSORS)
    assert forward == wanted(conv.convolution(layer), tiles)

    grad_input = done(
        emulator,
        lambda: torch.ops.structops.conv_transpose2d_grad_input(
            y, weight, layer.height, layer.width, *steps, layer.groups, ones
        ),
    )
    backward = dataclasses.replace(layer, forward=False)
    assert grad_input == wanted(conv.convolution(backward), conv_geometry.gather(backward, MULTIPROCESSORS))

    grad_weight = done(
        emulator,
        lambda: torch.ops.structops.conv_transpose2d_grad_weight(
            x, y, layer.kernel, layer.kernel, *steps, layer.groups, ones
        ),
    )
    assert grad_weight == wanted(conv.grad_weight(layer), conv_geometry.weight_gradient(layer))


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float32], ids=["bf16", "fp32"])
def test_mask_heads_multiply_and_copy_as_much_as_counted(product, dtype, g):
    layer = Layer(3, 1, 40, 72, 7, 7, 2, 2, 0, dtype, True)
    x, deconvolution, logits = (
        torch.randn(*size, generator=g).to(dtype) for size in ((3, 40, 7, 7), (40, 72, 2, 2), (5, 72, 1, 1))
    )
    x, deconvolution = (t.contiguous(memory_format=torch.channels_last) for t in (x, deconvolution))
    counted = done(
        product["plain"],
        lambda: ops.mask_head_predict(x, deconvolution, None, logits, None, torch.tensor([1, 0, 4])),
    )
    assert counted == wanted(conv.mask_head(layer), conv_geometry.mask_head(layer))
