"""The ops, as functions. Each runs on the backend that :func:`structops.backend` or the device chooses."""

from structops.ops.matrix_nms import matrix_nms
from structops.ops.multiscale_roi_align import multiscale_roi_align
from structops.ops.nms import batched_nms, nms
from structops.ops.nms_1d import nms_1d
from structops.ops.nms_padded import nms_padded
from structops.ops.ps_roi_align import ps_roi_align
from structops.ops.ps_roi_pool import ps_roi_pool
from structops.ops.roi_align import roi_align
from structops.ops.roi_align_1d import roi_align_1d
from structops.ops.roi_align_rotated import roi_align_rotated
from structops.ops.roi_pool import roi_pool
from structops.ops.soft_nms import soft_nms

__all__ = [
    "batched_nms",
    "matrix_nms",
    "multiscale_roi_align",
    "nms",
    "nms_1d",
    "nms_padded",
    "ps_roi_align",
    "ps_roi_pool",
    "roi_align",
    "roi_align_1d",
    "roi_align_rotated",
    "roi_pool",
    "soft_nms",
]
