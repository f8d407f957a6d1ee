"""structops: kernels for structured prediction in vision, as PyTorch ops.

>>> import structops
>>> structops.patch("torchvision")  # torchvision's detectors now run on structops
"""

from structops import nn, ops
from structops._backend import backend, current_backend
from structops.integrations import patch, unpatch
from structops.nn.fuse import FusionReport, fuse_conv_transpose

__version__ = "0.1.0"

__all__ = [
    "FusionReport",
    "__version__",
    "backend",
    "current_backend",
    "fuse_conv_transpose",
    "nn",
    "ops",
    "patch",
    "unpatch",
]
