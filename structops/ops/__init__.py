"""The ops, as functions. Each runs on the backend that :func:`structops.backend` or the device chooses."""

from structops.ops.anchors import default_boxes, generate_anchors, yolo_grid
from structops.ops.multiscale_roi_align import multiscale_roi_align
from structops.ops.nms import batched_nms, nms
from structops.ops.ps_roi_align import ps_roi_align
from structops.ops.ps_roi_pool import ps_roi_pool
from structops.ops.roi_align import roi_align
from structops.ops.roi_align_1d import roi_align_1d
from structops.ops.roi_align_rotated import roi_align_rotated
from structops.ops.roi_pool import roi_pool
from structops.ops.sigmoid_focal_loss import sigmoid_focal_loss

__all__ = [
    "batched_nms",
    "default_boxes",
    "generate_anchors",
    "multiscale_roi_align",
    "nms",
    "ps_roi_align",
    "ps_roi_pool",
    "roi_align",
    "roi_align_1d",
    "roi_align_rotated",
    "roi_pool",
    "sigmoid_focal_loss",
    "yolo_grid",
]
