"""Draws docs/images/upsampling.png, ways to make a matrix larger, and docs/images/convolution-matrix.png, convolution
and transposed convolution as matrices. Every number is computed by the library. Run by ``make docs``."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from pathlib import Path

import matplotlib.pyplot as plt
import torch
import torch.nn.functional as F

from structops import nn, ops

INPUT = torch.tensor([[1.0, 2.0], [3.0, 4.0]])
BEFORE_POOLING = torch.tensor([[1.0, 2, 6, 3], [3, 5, 2, 1], [1, 2, 2, 1], [7, 3, 4, 8]])
KERNEL_2D = torch.tensor([[1.0, 2, 1], [2, 4, 2], [1, 2, 1]])
KERNEL_1D = torch.tensor([1.0, 2, 3])
# A colour for each of the four inputs, and for what comes of several.
COLOURS = ["#56b4e9", "#e69f00", "#009e73", "#cc79a7"]
MIXED, EMPTY, BAND = "#dddddd", "white", "#56b4e9"


def cells(axes, values: torch.Tensor, colours: Sequence[Sequence[str]], left: float = 0, top: float = 0) -> None:
    """A matrix as a table of its numbers."""
    for i, row in enumerate(values.tolist()):
        for j, value in enumerate(row):
            corner = (left + j, top + i)
            axes.add_patch(plt.Rectangle(corner, 1, 1, facecolor=colours[i][j], edgecolor="#888888", linewidth=0.8))
            number = f"{value:.2f}".rstrip("0").rstrip(".")
            axes.text(corner[0] + 0.5, corner[1] + 0.5, number, ha="center", va="center", fontsize=10)


def frame(axes, width: float, height: float, title: str) -> None:
    axes.set(xlim=(-0.05, width + 0.05), ylim=(height + 0.05, -0.05), xticks=[], yticks=[], aspect="equal")
    axes.set_title(title, fontsize=10)
    axes.spines[:].set_visible(False)


def grid(axes, values: torch.Tensor, colours: Sequence[Sequence[str]], title: str) -> None:
    cells(axes, values, colours)
    frame(axes, values.shape[1], values.shape[0], title)


def origins(upsample) -> list[list[str]]:
    """For each output, the colour of the input it depends on: found by giving each input alone."""
    alone = [upsample(torch.eye(4)[i].view(2, 2)) != 0 for i in range(4)]
    reached = torch.stack(alone)  # [4, rows, columns]
    colours = []
    for i in range(reached.shape[1]):
        found = [reached[:, i, j].nonzero().flatten().tolist() for j in range(reached.shape[2])]
        colours.append([EMPTY if not f else COLOURS[f[0]] if len(f) == 1 else MIXED for f in found])
    return colours


def on_matrix(layer):
    def upsample(matrix: torch.Tensor) -> torch.Tensor:
        with torch.no_grad():
            return layer(matrix[None, None])[0, 0]

    return upsample


def learned(x: torch.Tensor) -> torch.Tensor:
    return ops.conv_transpose2d(x, KERNEL_2D[None, None], stride=2, padding=1, output_padding=1)


def draw_upsampling(path: Path) -> None:
    indices = torch.nn.MaxPool2d(2, return_indices=True)(BEFORE_POOLING[None, None])[1]
    unpool = nn.MaxUnpool2d(2)
    ways = {
        "nearest": on_matrix(nn.NearestUpsample2d(2)),
        "bed of nails": on_matrix(nn.BedOfNailsUpsample2d(2)),
        "max-unpooling": on_matrix(lambda x: unpool(x, indices)),
        "bilinear": on_matrix(nn.BilinearUpsample2d(1, 2)),
        "learned (transposed\nconvolution)": on_matrix(learned),
    }
    figure, axes = plt.subplots(2, 4, figsize=(9.6, 5.4), layout="constrained")
    grid(axes[0, 0], INPUT, [COLOURS[:2], COLOURS[2:]], "input")
    blank = [[EMPTY] * 4 for _ in range(4)]
    for k, at in enumerate(indices.flatten().tolist()):
        blank[at // 4][at % 4] = COLOURS[k]
    grid(axes[1, 0], BEFORE_POOLING, blank, "before max-pooling:\nwhere the largest were")
    grid(axes[1, 3], KERNEL_2D, [[EMPTY] * 3] * 3, "the learned kernel,\nfor instance")
    for place, (title, upsample) in zip([(0, 1), (0, 2), (1, 1), (0, 3), (1, 2)], ways.items(), strict=True):
        grid(axes[place], upsample(INPUT), origins(upsample), title)
    figure.savefig(path, dpi=110)


def convolution_matrix(length: int, stride: int) -> torch.Tensor:
    """X of the convolution ``a -> X a``: its columns are what it makes of the unit vectors."""
    return F.conv1d(torch.eye(length)[:, None], KERNEL_1D[None, None], stride=stride)[:, 0].T


def transposed(b: torch.Tensor, stride: int) -> torch.Tensor:
    return ops.conv_transpose2d(b[None, None, None], KERNEL_1D[None, None, None], stride=(1, stride))[0, 0, 0]


def banded(matrix: torch.Tensor) -> list[list[str]]:
    return [[BAND if value else EMPTY for value in row] for row in matrix.tolist()]


def draw_product(axes, matrix: torch.Tensor, vector: torch.Tensor, title: str) -> None:
    """A matrix, a vector and their product."""
    rows, columns = matrix.shape
    height = max(rows, columns)
    cells(axes, matrix, banded(matrix), 0, (height - rows) / 2)
    for left, values in ((columns + 0.7, vector), (columns + 2.7, matrix @ vector)):
        cells(axes, values[:, None], [[MIXED]] * len(values), left, (height - len(values)) / 2)
    axes.text(columns + 2.2, height / 2, "=", ha="center", va="center", fontsize=14)
    frame(axes, columns + 3.7, height, title)


def draw_matrices(path: Path) -> None:
    figure, axes = plt.subplots(2, 2, figsize=(9.6, 8.2), layout="constrained")
    for row, (stride, length) in zip(axes, ((1, 6), (2, 7)), strict=True):
        a = torch.arange(1.0, length + 1)
        x = convolution_matrix(length, stride)
        b = torch.arange(1.0, len(x) + 1)
        # The picture's matrix products are the ops' results.
        assert torch.equal(x @ a, F.conv1d(a[None, None], KERNEL_1D[None, None], stride=stride)[0, 0])
        assert torch.equal(x.T @ b, transposed(b, stride))
        draw_product(row[0], x, a, f"convolution, stride {stride}: X a")
        draw_product(row[1], x.T, b, f"transposed convolution, stride {stride}: $X^T$ b")
    figure.savefig(path, dpi=110)


if __name__ == "__main__":
    folder = Path(sys.argv[1]) if len(sys.argv) > 1 else Path(__file__).resolve().parents[1] / "images"
    folder.mkdir(parents=True, exist_ok=True)
    draw_upsampling(folder / "upsampling.png")
    draw_matrices(folder / "convolution-matrix.png")
