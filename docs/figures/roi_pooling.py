"""Draws docs/images/roi-pooling.png: what RoI Pool and RoI Align take from a photograph. Run by ``make docs``."""

from __future__ import annotations

import sys
from pathlib import Path

import matplotlib.pyplot as plt
import numpy as np
import torch
from matplotlib.patches import Rectangle
from skimage import data

from structops import ops

STRIDE = 16  # image pixels per feature pixel
BOX = (182.0, 58.0, 270.0, 178.0)  # a face, in image pixels (x1, y1, x2, y2)
BINS = (4, 3)  # of the drawn grids, height and width
CROP = 14  # side of the crops
VIEW = (144, 32, 304, 208)  # the part of the photograph that is drawn
POOL, ALIGN, TRUTH = "#d95f02", "#1b9e77", "#222222"


def rois(shift: float = 0.0) -> torch.Tensor:
    """The box, moved right: ``[1, 5]`` (batch index, x1, y1, x2, y2)."""
    x1, y1, x2, y2 = BOX
    return torch.tensor([[0.0, x1 + shift, y1, x2 + shift, y2]])


def pooled_edges(low: float, high: float, bins: int) -> list[tuple[float, float]]:
    """First and last image pixel of each of RoI Pool's bins along an axis, read from the op itself."""
    cells = torch.arange(64.0)
    column = torch.stack([cells, -cells]).view(1, 2, 64, 1)
    box = torch.tensor([[0.0, 0, low, 0, high]])
    most, least = ops.roi_pool(column, box, (bins, 1), 1 / STRIDE)[0, :, :, 0]
    return [(-a.item() * STRIDE, (b.item() + 1) * STRIDE) for a, b in zip(least, most, strict=True)]


def photograph(axes, image: np.ndarray, title: str, color: str) -> None:
    axes.imshow(image, interpolation="nearest")
    for line in range(0, 512, STRIDE):
        axes.axvline(line - 0.5, color="white", linewidth=0.5, alpha=0.45)
        axes.axhline(line - 0.5, color="white", linewidth=0.5, alpha=0.45)
    axes.set(xlim=(VIEW[0], VIEW[2]), ylim=(VIEW[3], VIEW[1]), xticks=[], yticks=[])
    axes.set_title(title, color=color, fontsize=11)
    x1, y1, x2, y2 = BOX
    axes.add_patch(Rectangle((x1, y1), x2 - x1, y2 - y1, fill=False, edgecolor=TRUTH, linewidth=2.2, linestyle="--"))


def draw_pool(axes, image: np.ndarray) -> None:
    photograph(axes, image, "RoI Pool: box and bins snap to whole feature pixels", POOL)
    x1, y1, x2, y2 = BOX
    for top, bottom in pooled_edges(y1, y2, BINS[0]):
        for left, right in pooled_edges(x1, x2, BINS[1]):
            inset = 1.5  # neighbours share pixels: drawn a little smaller, both edges can be seen
            size = right - left - 2 * inset, bottom - top - 2 * inset
            axes.add_patch(Rectangle((left + inset, top + inset), *size, facecolor=POOL, alpha=0.16))
            axes.add_patch(Rectangle((left + inset, top + inset), *size, fill=False, edgecolor=POOL, linewidth=1.4))


def draw_align(axes, image: np.ndarray) -> None:
    photograph(axes, image, "RoI Align: samples where the box is, between pixels", ALIGN)
    x1, y1, x2, y2 = BOX
    (rows, columns), samples = BINS, 2
    height, width = (y2 - y1) / rows, (x2 - x1) / columns
    for row in range(rows):
        for column in range(columns):
            corner = x1 + column * width, y1 + row * height
            axes.add_patch(Rectangle(corner, width, height, fill=False, edgecolor=ALIGN, linewidth=1.4))
    x = x1 + (np.arange(columns * samples) + 0.5) * width / samples
    y = y1 + (np.arange(rows * samples) + 0.5) * height / samples
    axes.plot(*(grid.ravel() for grid in np.meshgrid(x, y)), ".", color=ALIGN, markersize=6)


def displacement(shifts: np.ndarray) -> dict[str, list[float]]:
    """How far the centre of what is pooled lies from the centre of the box, in image pixels.

    The map holds each feature pixel's own place, so what an op returns is where it looked.
    """
    places = (torch.arange(32.0) + 0.5) * STRIDE
    features = torch.stack([places, -places]).view(1, 2, 1, 32).expand(1, 2, 32, 32).contiguous()
    found: dict[str, list[float]] = {"RoI Pool": [], "RoI Align": []}
    for shift in shifts:
        box = rois(float(shift))
        centre = (box[0, 1] + box[0, 3]) / 2
        for name, out in (
            # The mean of the largest and the smallest place in a bin is its middle.
            ("RoI Pool", ops.roi_pool(features, box, 7, 1 / STRIDE)[0]),
            ("RoI Align", ops.roi_align(features, box, 7, 1 / STRIDE, 2, aligned=True)[0]),
        ):
            found[name].append(((out[0] - out[1]) / 2).mean().item() - centre.item())
    return found


def main(path: Path) -> None:
    image = data.astronaut()
    pixels = torch.from_numpy(image).permute(2, 0, 1)[None].float() / 255
    # Features for the eye: the photograph itself at an eighth of its size.
    features = torch.nn.functional.avg_pool2d(pixels, 8)
    crops = {
        "the photograph": ops.roi_align(pixels, rois(), CROP, 1.0, -1, aligned=True),
        "RoI Pool": ops.roi_pool(features, rois(), CROP, 1 / 8),
        "RoI Align": ops.roi_align(features, rois(), CROP, 1 / 8, 2, aligned=True),
    }

    figure = plt.figure(figsize=(11, 7.6), layout="constrained")
    top, bottom = figure.subfigures(2, 1, height_ratios=(1.35, 1))
    left, right = top.subplots(1, 2)
    draw_pool(left, image)
    draw_align(right, image)

    *small, chart = bottom.subplots(1, 4, gridspec_kw={"width_ratios": (1, 1, 1, 2.1)})
    colors = dict(zip(crops, (TRUTH, POOL, ALIGN), strict=True))
    for axes, (name, crop) in zip(small, crops.items(), strict=True):
        axes.imshow(crop[0].permute(1, 2, 0).clamp(0, 1).numpy(), interpolation="nearest", aspect=120 / 88)
        error = (crop - crops["the photograph"]).abs().mean().item()
        axes.set_title(name if name == "the photograph" else f"{name}\ndiffers by {error:.3f}", fontsize=10)
        axes.title.set_color(colors[name])
        axes.set(xticks=[], yticks=[])
    shifts = np.linspace(0, 2 * STRIDE, 129)
    for name, values in displacement(shifts).items():
        chart.plot(shifts, values, color=colors[name], label=name, linewidth=2)
    chart.axhline(0, color=TRUTH, linewidth=0.8, linestyle="--")
    chart.set(xlabel="box moved right, image pixels", ylabel="looked too far right by, pixels")
    chart.set_title(f"Where a box is taken to be, at stride {STRIDE}", fontsize=10)
    chart.legend(frameon=False, loc="center right", bbox_to_anchor=(1, 0.2))
    chart.spines[["top", "right"]].set_visible(False)
    path.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(path, dpi=110)


if __name__ == "__main__":
    main(Path(sys.argv[1]) if len(sys.argv) > 1 else Path(__file__).parents[1] / "images" / "roi-pooling.png")
