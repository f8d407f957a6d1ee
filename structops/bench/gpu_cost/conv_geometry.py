"""How the launchers of ``csrc/conv_transpose2d`` cut a transposed convolution into blocks and steps.

What is here repeats ``conv_phases.cuh``, ``conv_tile.cuh`` and the launchers, for square kernels without dilation;
``tests/cuda_on_cpu/test_launches.py`` holds it against what the kernels do.
"""

from __future__ import annotations

import functools
import itertools
from collections.abc import Iterator
from dataclasses import dataclass

import torch

from structops.bench.gpu_cost.kernels import ceil_div

THREADS, WARPS, ROW_BYTES, CHUNK, POSITIONS = 128, 4, 64, 16, 128
AHEAD = 3  # tiles that are on their way while one is multiplied
LEAST_PIXELS, MOST_PARTS, BLOCKS_WANTED = 512, 64, 512  # of the weight's gradient
INPUT, OUTPUT = "input", "output"


@dataclass(frozen=True)
class Layer:
    """A transposed convolution. Channels are those of a group.

    Attributes:
        forward: else the gradient of the input, which reads outputs and writes inputs.
    """

    batch: int
    groups: int
    inputs: int
    outputs: int
    height: int
    width: int
    kernel: int
    stride: int
    padding: int
    dtype: torch.dtype
    channels_last: bool
    forward: bool = True

    def size(self, side: str) -> tuple[int, int]:
        if side == INPUT:
            return self.height, self.width
        high, wide = ((n - 1) * self.stride - 2 * self.padding + self.kernel for n in (self.height, self.width))
        return high, wide

    def channels(self, side: str) -> int:
        return self.inputs if side == INPUT else self.outputs

    def elements(self, side: str) -> int:
        height, width = self.size(side)
        return self.batch * self.groups * self.channels(side) * height * width

    @property
    def read(self) -> str:
        return INPUT if self.forward else OUTPUT

    @property
    def written(self) -> str:
        return OUTPUT if self.forward else INPUT

    @property
    def weights(self) -> int:
        return self.groups * self.inputs * self.outputs * self.kernel**2

    @property
    def flops(self) -> int:
        """Two for each input pixel, tap and pair of channels; those that padding cuts off are few."""
        return 2 * self.batch * self.height * self.width * self.weights

    @property
    def pack(self) -> int:
        """Values in 16 bytes."""
        return CHUNK // self.dtype.itemsize

    @property
    def step_depth(self) -> int:
        return ROW_BYTES // self.dtype.itemsize

    def padded(self, channels: int) -> int:
        return ceil_div(channels, self.pack) * self.pack

    def wide(self, side: str) -> bool:
        """Whether 16 bytes of channels move together as the map lies."""
        return self.channels_last and self.channels(side) % self.pack == 0


@dataclass(frozen=True)
class Run:
    """Phases of one axis that are one product: ``count`` positions, each with ``taps`` that read pixel
    ``(first + i) * scale + offset + tap * step``."""

    phases: int
    first: int
    count: int
    taps: int
    scale: int = 1
    offset: int = 0
    step: int = -1

    def inside(self, pixels: int) -> int:
        """Positions and taps whose pixel there is."""
        at = (self.first + torch.arange(self.count)) * self.scale + self.offset
        read = at[:, None] + self.step * torch.arange(self.taps)
        return int(((read >= 0) & (read < pixels)).sum())


def axis_runs(layer: Layer, outputs: int, joined: bool) -> list[Run]:
    kernel, stride, padding = layer.kernel, layer.stride, layer.padding
    if not layer.forward:
        return [Run(1, 0, outputs, kernel, stride, -padding, 1)]
    longer = kernel % stride
    if joined:
        phases = [(0, longer), (longer, stride - longer)] if longer else [(0, stride)]
    else:
        phases = [((i + padding) % stride, 1) for i in range(min(stride, outputs))]
    runs = []
    for phase, together in phases:
        first = -((phase + together - 1 - padding) // stride)
        count = max((outputs - 1 + padding - phase) // stride + 1 - first, 0)
        runs.append(Run(together, first, count, ceil_div(kernel - phase, stride) if phase < kernel else 0))
    return runs


@dataclass(frozen=True)
class Tiles:
    """Work of blocks that multiply tiles of ``POSITIONS`` by ``channels``.

    Attributes:
        steps: tiles of depth, of all blocks together.
        chunks: copies of 16 bytes that read; those of no pixel or channel are zeros instead.
    """

    layer: Layer
    channels: int
    blocks: int
    steps: int
    chunks: int

    @property
    def products(self) -> int:
        """Of 16 x 8 sums and a depth of 16, by warps."""
        return self.steps * POSITIONS * self.channels * self.layer.step_depth // (16 * 8 * 16)

    @property
    def copies(self) -> int:
        """Copies of 16 bytes, by threads, zeros included."""
        return self.steps * (POSITIONS + self.channels) * ROW_BYTES // CHUNK


@dataclass(frozen=True)
class Product:
    """One run of phases down and one across, of one group."""

    taps: int
    steps: int  # of a block
    blocks: int
    chunks: int  # of all of them


@dataclass(frozen=True)
class Gather(Tiles):
    """A launch of conv_gather_kernel.

    Attributes:
        parts: the products of one group; all groups have the same.
        phases: neighbours in a row of NCHW that a position has in a tile; 1 in NHWC.
    """

    parts: tuple[Product, ...]
    phases: int
    wide: bool

    @property
    def used(self) -> float:
        """Share of the sums that are outputs."""
        return self.layer.elements(self.layer.written) / (self.blocks * POSITIONS * self.channels)


def _products(layer: Layer, downs: list[Run], acrosses: list[Run], tile: int) -> Iterator[Product]:
    depth, channels = layer.padded(layer.channels(layer.read)), layer.channels(layer.written)
    height, width = layer.size(layer.read)
    for down, across in itertools.product(downs, acrosses):
        positions, lanes = layer.batch * down.count * across.count, down.phases * across.phases * channels
        tiles, taps = ceil_div(lanes, tile), down.taps * across.taps
        pixels = tiles * layer.batch * down.inside(height) * across.inside(width)
        weights = ceil_div(positions, POSITIONS) * lanes * taps
        yield Product(
            taps,
            taps * ceil_div(depth, layer.step_depth),
            tiles * ceil_div(positions, POSITIONS),
            (pixels + weights) * depth // layer.pack,
        )


@functools.cache
def gather(layer: Layer, multiprocessors: int) -> Gather:
    """As ``conv_gather`` decides."""
    height, width = layer.size(layer.written)
    channels, planar = layer.channels(layer.written), not layer.channels_last

    def joins(outputs: int, wanted: bool) -> bool:
        exact = layer.padding % layer.stride == 0 and outputs % layer.stride == 0
        return layer.forward and (exact or wanted)

    few = channels < 64
    downs = axis_runs(layer, height, joins(height, few))
    acrosses = axis_runs(layer, width, joins(width, few or planar))
    tile = 64
    if layer.dtype.itemsize == 2:
        # The launcher looks at the largest product.
        positions = layer.batch * max(r.count for r in downs) * max(r.count for r in acrosses)
        lanes = max(r.phases for r in downs) * max(r.phases for r in acrosses) * channels
        blocks = ceil_div(positions, 128) * ceil_div(lanes, 128) * len(downs) * len(acrosses) * layer.groups
        filled = lanes >= 512 or lanes % 128 == 0 or lanes % 128 > 64
        tile = 128 if filled and blocks >= 2 * multiprocessors else 64
    products, groups = tuple(_products(layer, downs, acrosses, tile)), layer.groups
    across = acrosses[0].phases
    return Gather(
        layer,
        tile,
        groups * sum(p.blocks for p in products),
        groups * sum(p.blocks * p.steps for p in products),
        groups * sum(p.chunks for p in products),
        products,
        across if planar and tile % across == 0 else 1,
        layer.wide(layer.written),
    )


@dataclass(frozen=True)
class WeightGradient(Tiles):
    """A launch of conv_grad_weight_kernel. ``parts``: that the pixels are added up in."""

    parts: int


@functools.cache
def weight_gradient(layer: Layer) -> WeightGradient:
    channels, taps, pixels = 64, layer.kernel**2, layer.batch * layer.height * layer.width
    tiles = ceil_div(layer.inputs, POSITIONS) * ceil_div(layer.outputs, channels) * layer.groups * taps
    parts = max(1, min(ceil_div(BLOCKS_WANTED, tiles), MOST_PARTS, pixels // LEAST_PIXELS))
    ends = [pixels * part // parts for part in range(parts + 1)]
    steps = sum(ceil_div(end - begin, layer.step_depth) for begin, end in itertools.pairwise(ends))
    # Pixels and taps that meet; a block reads both maps' channels of its tile.
    met = layer.batch * layer.groups
    for size, outputs in zip(layer.size(INPUT), layer.size(OUTPUT), strict=True):
        at = torch.arange(size)[:, None] * layer.stride - layer.padding + torch.arange(layer.kernel)
        met *= int(((at >= 0) & (at < outputs)).sum())
    read = layer.padded(layer.inputs) * ceil_div(layer.outputs, channels)
    read += layer.padded(layer.outputs) * ceil_div(layer.inputs, POSITIONS)
    return WeightGradient(layer, channels, tiles * parts, tiles * steps, met * read // layer.pack, parts)


def mask_head(layer: Layer) -> Tiles:
    """A launch of mask_head_predict_kernel: a block of pixels for each of the four phases, hidden channels in turn."""
    channels, positions = 64, layer.batch * layer.height * layer.width
    depth, hidden = layer.padded(layer.inputs), ceil_div(layer.outputs, channels)
    blocks = ceil_div(positions, POSITIONS) * 4
    read = 4 * hidden * positions + blocks * layer.outputs
    return Tiles(
        layer, channels, blocks, blocks * hidden * ceil_div(depth, layer.step_depth), read * depth // layer.pack
    )
