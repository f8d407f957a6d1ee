"""Modules with torchvision's names and arguments, and detectron2's where torchvision has none."""

from structops.nn.conv_transpose2d import ConvTranspose2d, FusedConvTranspose2d
from structops.nn.multiscale_roi_align import MultiScaleRoIAlign
from structops.nn.ps_roi_align import PSRoIAlign
from structops.nn.ps_roi_pool import PSRoIPool
from structops.nn.roi_align import RoIAlign
from structops.nn.roi_align_rotated import RoIAlignRotated
from structops.nn.roi_pool import RoIPool
from structops.nn.upsampling import (
    BedOfNailsUpsample2d,
    BilinearUpsample2d,
    MaxUnpool2d,
    NearestUpsample2d,
    bilinear_kernel_,
)

__all__ = [
    "BedOfNailsUpsample2d",
    "BilinearUpsample2d",
    "ConvTranspose2d",
    "FusedConvTranspose2d",
    "MaxUnpool2d",
    "MultiScaleRoIAlign",
    "NearestUpsample2d",
    "PSRoIAlign",
    "PSRoIPool",
    "RoIAlign",
    "RoIAlignRotated",
    "RoIPool",
    "bilinear_kernel_",
]
