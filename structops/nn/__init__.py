"""Modules with torchvision's names and arguments."""

from structops.nn.ps_roi_align import PSRoIAlign
from structops.nn.ps_roi_pool import PSRoIPool
from structops.nn.roi_align import RoIAlign

__all__ = ["PSRoIAlign", "PSRoIPool", "RoIAlign"]
