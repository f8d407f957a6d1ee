"""Modules with torchvision's names and arguments, and detectron2's where torchvision has none."""

from structops.nn.multiscale_roi_align import MultiScaleRoIAlign
from structops.nn.ps_roi_align import PSRoIAlign
from structops.nn.ps_roi_pool import PSRoIPool
from structops.nn.roi_align import RoIAlign
from structops.nn.roi_align_rotated import RoIAlignRotated
from structops.nn.roi_pool import RoIPool

__all__ = ["MultiScaleRoIAlign", "PSRoIAlign", "PSRoIPool", "RoIAlign", "RoIAlignRotated", "RoIPool"]
