"""The ops, as functions. Each runs on the backend that :func:`structops.backend` or the device chooses."""

from structops.ops.match_boxes import match_boxes
from structops.ops.multiscale_roi_align import multiscale_roi_align
from structops.ops.nms import batched_nms, nms
from structops.ops.ps_roi_align import ps_roi_align
from structops.ops.ps_roi_pool import ps_roi_pool
from structops.ops.roi_align import roi_align
from structops.ops.roi_align_1d import roi_align_1d
from structops.ops.roi_align_rotated import roi_align_rotated
from structops.ops.roi_pool import roi_pool
from structops.ops.sample_matches import sample_matches

__all__ = [
    "batched_nms",
    "match_boxes",
    "multiscale_roi_align",
    "nms",
    "ps_roi_align",
    "ps_roi_pool",
    "roi_align",
    "roi_align_1d",
    "roi_align_rotated",
    "roi_pool",
    "sample_matches",
]
