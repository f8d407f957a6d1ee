"""The ops, as functions. Each runs on the backend that :func:`structops.backend` or the device chooses."""

from structops.ops.multiscale_roi_align import multiscale_roi_align
from structops.ops.nms import batched_nms, nms
from structops.ops.roi_align import roi_align
from structops.ops.roi_pool import roi_pool

__all__ = ["batched_nms", "multiscale_roi_align", "nms", "roi_align", "roi_pool"]
