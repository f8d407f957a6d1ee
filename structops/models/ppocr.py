"""PP-OCRv6's text detector, in its small size: a network that gives each pixel the probability of being text, and
"Real-time Scene Text Detection with Differentiable Binarization" (Liao et al., 2020) to make boxes of them; able to
read the weights that PaddleOCR's authors published and RapidOCR ships as an ONNX file.

The backbone is PP-LCNetV4, the neck RepLKFPN, both as PaddleOCR and RapidOCR write them
(rapidocr/inference_engine/pytorch/networks); here with the branches of training merged into one convolution, as in
the file. The DB head doubles its map twice, by transposed convolutions.
"""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from structops.models import _onnx, _pictures
from structops.models._upsample import Upsample

if TYPE_CHECKING:
    import numpy as np

_MULTIPLE = 32  # the backbone halves five times, the neck and the head double as often: sizes must divide
_STEM = (24, 48)  # channels within the stem and behind it
# The backbone's stages at strides 4, 8, 16, 32: channels, and which blocks of stride 1 squeeze and excite.
_STAGES = ((48, (True, False)), (96, (True, False)), (192, (True, False, True, False)), (384, (True, False)))
_CHANNELS = 96  # of the neck
_LARGE_KERNEL = 7

_SHORT_SIDE, _LONG_SIDE = 736, 2000  # pixels: small pictures are enlarged to the one, unless that exceeds the other
_UNCLIP = 1.6  # how far a region, which the network was taught to shrink, grows back
_LEAST_SIDE = 3  # of a region, in pixels of the network's input
_CORNERS = ((-1, -1), (1, -1), (1, 1), (-1, 1))  # right and down are positive: clockwise on the screen


class Texts(NamedTuple):
    """Lines of text in one image, from top to bottom."""

    boxes: Tensor  # [N, 4, 2] corners (x, y) in pixels of that image, clockwise on the screen; the first is top left
    scores: Tensor  # [N] mean probability of text within the box, before it grew


def _conv(inputs: int, outputs: int, kernel: int = 1, stride: int = 1, groups: int = 1, bias: bool = True) -> nn.Conv2d:
    return nn.Conv2d(inputs, outputs, kernel, stride, padding=kernel // 2, groups=groups, bias=bias)


class SameConv(nn.Conv2d):
    """2 x 2 with stride 1 and the size kept: a pixel and its neighbours to the right and below."""

    def __init__(self, inputs: int, outputs: int) -> None:
        super().__init__(inputs, outputs, 2)

    def forward(self, x: Tensor) -> Tensor:
        return super().forward(F.pad(x, (0, 1, 0, 1)))


class SqueezeExcite(nn.Module):
    """Each channel times a factor, 0 to 1, that follows from the means of all ("Squeeze-and-Excitation Networks", Hu
    et al., 2018); the sigmoid is made of three straight lines."""

    def __init__(self, channels: int, slope: float) -> None:
        super().__init__()
        self.squeeze = _conv(channels, channels // 4)
        self.excite = _conv(channels // 4, channels)
        self.slope = slope

    def forward(self, x: Tensor) -> Tensor:
        gate = self.excite(self.squeeze(x.mean((2, 3), keepdim=True)).relu())
        return x * (self.slope * gate + 0.5).clamp(0, 1)


class Block(nn.Module):
    """Filter each channel, then mix the channels pixel by pixel; the mixed are added where the shape allows."""

    def __init__(self, inputs: int, outputs: int, stride: int = 1, excite: bool = False) -> None:
        super().__init__()
        filter = _conv(inputs, inputs, 3, stride, groups=inputs)
        self.filter = nn.Sequential(filter, SqueezeExcite(inputs, 1 / 6)) if excite else filter
        self.mix = nn.Sequential(_conv(inputs, 2 * inputs), nn.GELU(), _conv(2 * inputs, outputs))
        self.residual = stride == 1 and inputs == outputs

    def forward(self, x: Tensor) -> Tensor:
        x = self.filter(x)
        return x + self.mix(x) if self.residual else self.mix(x)


class Stem(nn.Module):
    """``[B, 3, H, W]`` to stride 4; between its two strided convolutions, two small ones run beside a maximum."""

    def __init__(self) -> None:
        super().__init__()
        hidden, outputs = _STEM
        self.first = nn.Sequential(_conv(3, hidden, 3, 2), nn.ReLU())
        self.branch = nn.Sequential(SameConv(hidden, hidden // 2), nn.ReLU(), SameConv(hidden // 2, hidden), nn.ReLU())
        self.last = nn.Sequential(_conv(2 * hidden, hidden, 3, 2), nn.ReLU(), _conv(hidden, outputs), nn.ReLU())

    def forward(self, x: Tensor) -> Tensor:
        x = self.first(x)
        largest = F.max_pool2d(F.pad(x, (0, 1, 0, 1)), 2, 1)  # zeros are as good as nothing here: x is not negative
        return self.last(torch.cat([largest, self.branch(x)], 1))


class Backbone(nn.Module):
    """``[B, 3, H, W]`` to maps of 48, 96, 192 and 384 channels, strides 4 to 32."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = Stem()
        stages, inputs = [], _STEM[1]
        for channels, excited in _STAGES:
            enter = [Block(inputs, channels, 2)] if channels != inputs else []
            stages.append(nn.Sequential(*enter, *(Block(channels, channels, excite=excite) for excite in excited)))
            inputs = channels
        self.stages = nn.ModuleList(stages)

    def forward(self, x: Tensor) -> list[Tensor]:
        x = self.stem(x)
        maps = []
        for stage in self.stages:
            x = stage(x)
            maps.append(x)
        return maps


class Excited(nn.Module):
    """A convolution, and its squeezed and excited output added to itself."""

    def __init__(self, conv: nn.Module, channels: int) -> None:
        super().__init__()
        self.conv = conv
        self.excite = SqueezeExcite(channels, 0.2)

    def forward(self, x: Tensor) -> Tensor:
        x = self.conv(x)
        return x + self.excite(x)


class Neck(nn.Module):
    """A feature pyramid's top-down path; each of its maps, seen through a large kernel, gives a quarter of the output's
    channels at stride 4."""

    def __init__(self) -> None:
        super().__init__()
        coarse_first = [channels for channels, _ in reversed(_STAGES)]
        self.laterals = nn.ModuleList(Excited(_conv(c, _CHANNELS, bias=False), _CHANNELS) for c in coarse_first)
        self.smooth = nn.ModuleList(self._smoothing() for _ in coarse_first)

    @staticmethod
    def _smoothing() -> Excited:
        filter = _conv(_CHANNELS, _CHANNELS, _LARGE_KERNEL, groups=_CHANNELS)
        return Excited(nn.Sequential(filter, _conv(_CHANNELS, _CHANNELS // 4, bias=False)), _CHANNELS // 4)

    def forward(self, maps: list[Tensor]) -> Tensor:
        x, *finer = (lateral(m) for lateral, m in zip(self.laterals, reversed(maps), strict=True))
        merged = [x]
        for lateral in finer:
            merged.append(lateral + F.interpolate(merged[-1], scale_factor=2.0))
        size = merged[-1].shape[2:]
        return torch.cat([F.interpolate(f(m), size) for f, m in zip(self.smooth, merged, strict=True)], 1)


class Head(nn.Sequential):
    """Stride 4 to the probability of text at every pixel."""

    def __init__(self) -> None:
        hidden = _CHANNELS // 4
        super().__init__(
            _conv(_CHANNELS, hidden, 3), nn.ReLU(), Upsample(hidden, hidden), Upsample(hidden, 1, "sigmoid")
        )


class PPOCRDetector(nn.Module):
    """The network. ``PPOCRDetector.from_onnx()`` has the published weights; ``detect`` finds the text in a picture.

    >>> texts = PPOCRDetector.from_onnx().detect(picture)  # uint8 [3, H, W], RGB
    """

    def __init__(self) -> None:
        super().__init__()
        # In the order of execution, down to the last convolution: from_onnx goes by it.
        self.backbone = Backbone()
        self.neck = Neck()
        self.head = Head()
        self.eval().to(memory_format=torch.channels_last)  # on a CPU, 1.6 times as fast as NCHW

    @classmethod
    def from_onnx(cls, path: str | os.PathLike[str] | None = None) -> PPOCRDetector:
        """Read the published weights.

        Args:
            path: the file; ``None``: the one inside the installed ``rapidocr`` package.

        Raises:
            FileNotFoundError: without a path, when the ``rapidocr`` package is not installed or has another network.
            ValueError: when the file is not this network.
        """
        path = Path(path) if path is not None else published_weights()
        model = cls()
        _onnx.fill_in_order(model, _onnx.load(path), f"{path} is not PP-OCRv6's small text detector")
        return model

    def forward(self, x: Tensor) -> Tensor:
        """``x [B, 3, H, W]``: BGR, -1 to 1, height and width multiples of 32. Gives ``[B, 1, H, W]``, 0 to 1."""
        return self.head(self.neck(self.backbone(x)))

    def prepared(self, picture: Tensor) -> Tensor:
        """A picture ``[3, H, W]`` (RGB, 0 to 255, any dtype, any size of a pixel or more) as ``forward`` takes it."""
        _pictures.check("PPOCRDetector", picture)
        height, width = picture.shape[-2:]
        factor = min(max(_SHORT_SIDE / min(height, width), 1), _LONG_SIDE / max(height, width))
        size = [max(round(side * factor / _MULTIPLE), 1) * _MULTIPLE for side in (height, width)]
        x = F.interpolate(picture[None].to(next(self.parameters())), size, mode="bilinear", align_corners=False)
        return x.flip(1) / 127.5 - 1

    @torch.no_grad()
    def detect(self, picture: Tensor, threshold: float = 0.3, box_threshold: float = 0.5) -> Texts:
        """Find the text in one picture, which ``prepared`` takes.

        Args:
            threshold: pixels whose probability is above it are text.
            box_threshold: the least mean probability of a region.
        """
        probability = self(self.prepared(picture))[0, 0]
        boxes, scores = regions(probability.float().cpu().numpy(), threshold, box_threshold)
        (map_height, map_width), (height, width) = probability.shape, picture.shape[-2:]
        texts = Texts(torch.from_numpy(boxes), torch.from_numpy(scores))
        corners = texts.boxes * torch.tensor([width / map_width, height / map_height])
        corners = corners.clamp(min=0).minimum(torch.tensor([float(width), float(height)]))
        return Texts(corners, texts.scores)


def regions(probability: np.ndarray, threshold: float, box_threshold: float) -> tuple[np.ndarray, np.ndarray]:
    """Boxes ``[N, 4, 2]`` and scores ``[N]`` of the regions of a map ``[H, W]``, in its pixels, from top to bottom.

    A region is what hangs together, diagonals included, of the pixels above ``threshold``. Around it lies the rectangle
    of least area, whose mean must reach ``box_threshold``. The network was taught to shrink text, so each side moves
    outwards by 1.6 times area / perimeter (Vatti's clipping, and a rectangle around its result, come to the same).
    """
    import numpy as np
    from scipy import ndimage

    labels, _ = ndimage.label(probability > threshold, structure=np.ones((3, 3)))
    found = []
    for label, window in enumerate(ndimage.find_objects(labels), start=1):
        centre, axes, sides = _smallest_rectangle(labels[window] == label)
        centre += (window[1].start, window[0].start)
        score = _mean_within(probability, centre, axes, sides)
        if min(sides) < _LEAST_SIDE or score < box_threshold:
            continue
        grow = _UNCLIP * sides.prod() / (2 * sides.sum())
        found.append((centre + (np.array(_CORNERS) * (sides / 2 + grow)) @ axes, score))
    found.sort(key=lambda region: tuple(region[0][0, ::-1]))
    boxes = np.array([corners for corners, _ in found], np.float32).reshape(-1, 4, 2)
    return boxes, np.array([score for _, score in found], np.float32)


def _mean_within(values: np.ndarray, centre: np.ndarray, axes: np.ndarray, sides: np.ndarray) -> float:
    """The mean of the pixels ``[H, W]`` whose centres are in a rectangle."""
    import numpy as np

    reach = np.abs(axes).T @ (sides / 2)  # (x, y) from the centre to the upright box around the rectangle
    left, top = np.floor(centre - reach).astype(int).clip(0)
    right, bottom = np.ceil(centre + reach).astype(int)
    part = values[top:bottom, left:right]
    rows, columns = np.indices(part.shape)
    offsets = np.stack([columns + left + 0.5, rows + top + 0.5], 2) - centre
    return part[(np.abs(offsets @ axes.T) <= sides / 2).all(2)].mean()


def _smallest_rectangle(inside: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """The rectangle of least area around the set pixels of a map ``[H, W]``, each of whose rows has some.

    Returns its centre (x, y), its axes ``[2, 2]``, unit vectors that point right and down, give or take 45 degrees, and
    its sides along them. One of its sides lies on a side of the convex hull.
    """
    import numpy as np
    from scipy.spatial import ConvexHull

    rows = np.arange(len(inside))
    first, last = inside.argmax(1), inside.shape[1] - inside[:, ::-1].argmax(1)  # pixels are squares: [x, x + 1]
    points = np.stack([np.concatenate([first, last] * 2), np.concatenate([rows, rows, rows + 1, rows + 1])], 1)
    hull = points[ConvexHull(points).vertices].astype(float)
    edges = np.roll(hull, -1, 0) - hull
    quarter = np.pi / 2
    angles = (np.arctan2(edges[:, 1], edges[:, 0]) + quarter / 2) % quarter - quarter / 2
    directions = np.stack([np.cos(angles), np.sin(angles), -np.sin(angles), np.cos(angles)], 1).reshape(-1, 2, 2)
    along = directions @ hull.T  # [edges, 2, points]
    low, high = along.min(2), along.max(2)
    best = (high - low).prod(1).argmin()
    axes = directions[best]
    return (low[best] + high[best]) / 2 @ axes, axes, high[best] - low[best]


def published_weights() -> Path:
    """The ONNX file inside the ``rapidocr`` package."""
    path = _onnx.packaged("rapidocr", "models/PP-OCRv6_det_small.onnx")
    if path is None:
        raise FileNotFoundError(
            "PP-OCRv6's weights come with the rapidocr package: pip install --no-deps 'rapidocr>=3.10,<4'"
        )
    return path
