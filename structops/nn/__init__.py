"""Modules with torchvision's names and arguments."""

from structops.nn.roi_align import RoIAlign

__all__ = ["RoIAlign"]
