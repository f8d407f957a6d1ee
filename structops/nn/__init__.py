"""Modules with torchvision's names and arguments."""

from structops.nn.multiscale_roi_align import MultiScaleRoIAlign
from structops.nn.roi_align import RoIAlign
from structops.nn.roi_pool import RoIPool

__all__ = ["MultiScaleRoIAlign", "RoIAlign", "RoIPool"]
