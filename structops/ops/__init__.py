"""The ops, as functions. Each runs on the backend that :func:`structops.backend` or the device chooses."""

from structops.ops.nms import batched_nms, nms
from structops.ops.ps_roi_align import ps_roi_align
from structops.ops.ps_roi_pool import ps_roi_pool
from structops.ops.roi_align import roi_align

__all__ = ["batched_nms", "nms", "ps_roi_align", "ps_roi_pool", "roi_align"]
