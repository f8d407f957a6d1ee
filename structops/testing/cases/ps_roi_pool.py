"""Cases of position-sensitive RoI Pool: those of position-sensitive RoI Align, and its rounding."""

from __future__ import annotations

import torch

from structops.ops import ps_roi_pool
from structops.ops._boxes import as_rois
from structops.testing.cases._draw import tensor
from structops.testing.cases.ps_roi_align import arguments, common_cases, error_cases
from structops.testing.spec import OpSpec

CASES = common_cases()


@CASES.add("halves")  # corners between two pixels round away from zero
def _(g):
    at = torch.arange(-2.5, 8.5, 0.5, dtype=torch.float64)
    return arguments(g, (1, 2, 6, 8), torch.stack([0 * at, at, at, at + 2.5, at + 1.5], 1), (2, 2))


@CASES.add("rounds-to-nothing")  # a pixel long at least
def _(g):
    boxes = tensor([0, 2.6, 3.1, 3.4, 3.2], [0, 2, 2, 2, 2], [0, 4, 4, 3, 3], [0, 0, 0, 0.4, 0.4])
    return arguments(g, (1, 1, 7, 7), boxes, (3, 2))


class _Torchvision(torch.autograd.Function):
    """torchvision's forward, with the backward that belongs to it.

    Its forward clips bins to the last row and column of the map, its backward to the end of it: that of a map without
    them is the forward's transpose.
    """

    @staticmethod
    def forward(ctx, input, rois, scale, pooled):
        output, mapping = torch.ops.torchvision.ps_roi_pool(input, rois, scale, *pooled)
        ctx.save_for_backward(rois, mapping)
        ctx.options = scale, pooled, input.shape
        return output

    @staticmethod
    def backward(ctx, grad):
        rois, mapping = ctx.saved_tensors
        scale, pooled, (n, c, h, w) = ctx.options
        inner = torch.ops.torchvision._ps_roi_pool_backward(
            grad.contiguous(), rois, mapping, scale, *pooled, n, c, h - 1, w - 1
        )
        return torch.nn.functional.pad(inner, (0, 1, 0, 1)), None, None, None


def _torchvision(input, boxes, output_size, spatial_scale=1.0):
    import torchvision  # noqa: F401  (registers its ops)

    rois = as_rois("ps_roi_pool", boxes).to(input)
    return _Torchvision.apply(input, rois, spatial_scale, tuple(output_size))


SPECS = (
    OpSpec(
        name="ps_roi_pool",
        function=ps_roi_pool,
        dispatcher_ops=("ps_roi_pool", "ps_roi_pool_backward"),
        cases=tuple(CASES),
        errors=error_cases("ps_roi_pool", {}),
        data=("input",),
        layouts=("input",),
        differentiable=("input",),
        peer={"torchvision": _torchvision},
    ),
)
