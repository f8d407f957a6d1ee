"""How often the kernels of transposed convolutions, and of the mask head, go which way (see ``walks``).

Left out, since they add little: the code of blocks without work, and activations.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch

from structops.bench.gpu_cost import conv_geometry
from structops.bench.gpu_cost.conv_geometry import (
    AHEAD,
    CHUNK,
    INPUT,
    OUTPUT,
    POSITIONS,
    ROW_BYTES,
    THREADS,
    WARPS,
    Gather,
    Layer,
)
from structops.bench.gpu_cost.geometry import LINE, SECTOR, WARP
from structops.bench.gpu_cost.gpu import H200
from structops.bench.gpu_cost.kernels import TYPES, Launch, ceil_div
from structops.bench.gpu_cost.sass import Instruction, Kernel, Loop
from structops.bench.gpu_cost.walks import MMA_FLOPS, WORD, Walk, bank_turns, walked, wavefronts

COPY = "LDGSTS"
SCALAR_ACROSS = 8  # threads along the channels of a tile without tensor cores
SUM_PADDING, SUM_GAP = 8, 4
MASK_SUM_PADDING = 5
PACK_ROWS, PACK_DEPTHS, PACK_THREADS = 32, 64, 256


@dataclass(frozen=True)
class Steps:
    """The loop over tiles of depth (ConvStages::run), and the one before it that starts the first copies."""

    first: Loop | None
    main: Loop
    multiply: str

    @classmethod
    def of(cls, around: Loop, dtype: torch.dtype) -> Steps:
        multiply = "HMMA" if dtype.itemsize == 2 else "FFMA"
        copying = [loop for loop in around.inner if loop.count(COPY)]
        (main,) = [loop for loop in copying if loop.count(multiply)]
        return cls(next((loop for loop in copying if loop is not main), None), main, multiply)

    def walks(self, layer: Layer, channels: int, steps: int, warps: float, every: Sequence[int] = ()) -> list[Walk]:
        """``warps``: of all blocks. ``every``: the steps that also find out where a tap's copies come from."""
        copied = max(steps - AHEAD, 0)
        with_copy = self.main.path(COPY, self.multiply)
        found = [Walk(with_copy, warps * copied), Walk(self.main.path(self.multiply), warps * (steps - copied))]
        if self.first is not None:
            found.append(Walk(self.first.path(COPY), warps * min(steps, AHEAD)))
        early = sum(step < AHEAD for step in every) if self.first is not None else 0
        late = len(every) - early
        if late:
            found.append(Walk(longer(self.main, (COPY, self.multiply), "LDS"), warps * late))
        if self.first is not None and early:
            found.append(Walk(longer(self.first, (COPY,), "LDS"), warps * early))
        sums = POSITIONS * channels // THREADS * layer.step_depth
        for chunk in self.main.inner:
            found.append(Walk(chunk.path(self.multiply), warps * steps * sums / chunk.count(self.multiply)))
        products = sum(w.products for w in found[:1]) * WARPS
        if self.multiply == "HMMA" and products * MMA_FLOPS != 2 * POSITIONS * channels * layer.step_depth:
            raise ValueError(f"{products} HMMA a step are not a tile of {POSITIONS} x {channels}")
        return found


def longer(loop: Loop, payload: tuple[str, ...], more: str) -> list[Instruction]:
    """What the way with ``more`` has beyond the one without."""
    short = {i.address for i in loop.path(*payload)}
    return [i for i in loop.path(*payload, more) if i.address not in short]


def sums_conflicts(layer: Layer, channels: int, stride: int, pairs: bool) -> float:
    """Extra turns of the shared memory while a warp stores its sums; ``pairs``: two by two, on tensor cores."""
    if layer.dtype.itemsize == 2:
        words = [lane // 4 * stride + lane % 4 * 2 for lane in range(WARP)]
    else:
        words = [lane // SCALAR_ACROSS * stride + lane % SCALAR_ACROSS for lane in range(WARP)]
        pairs = False
    width = 2 if pairs else 1
    return POSITIONS * channels / THREADS / width * (bank_turns(words, width) - width)


def _stride(g: Gather) -> int:
    """Of the sums of a position."""
    if g.wide:
        return (g.channels + g.channels // 32 * SUM_GAP + 7) // 16 * 16 + 8
    few = not g.layer.channels_last and g.phases < SUM_PADDING
    return g.channels + (max(g.phases, 2) if few else SUM_PADDING)


def gather(layer: Layer, residual: bool = False, multiprocessors: int = H200.multiprocessors) -> Launch:
    """conv_gather_kernel."""
    g = conv_geometry.gather(layer, multiprocessors)
    stride = _stride(g)

    def walks(code: Kernel) -> list[Walk]:
        (run,) = [loop for loop in code.body.inner if loop.count(COPY)]
        steps = Steps.of(run, layer.dtype)
        found = [Walk(code.body.path(), WARPS * g.blocks)]
        around = run.path("BAR", "STS")
        found.append(Walk(around, WARPS * g.blocks, sums_conflicts(layer, g.channels, stride, True)))
        for p in g.parts:
            warps, depth_steps = WARPS * p.blocks * layer.groups, p.steps // p.taps if p.taps else 1
            found += steps.walks(layer, g.channels, p.steps, warps, range(0, p.steps, depth_steps))
        lanes = next(loop for loop in run.inner if loop.count("STS") and not loop.count(COPY))
        found.append(Walk(lanes.path("STS"), WARPS * g.blocks * ceil_div(g.channels, THREADS)))
        return found + _put(g, run, residual)

    # A copy of 16 bytes a lane: rows of 64 bytes, a line each.
    return walked(
        f"conv_gather_kernel<{TYPES[layer.dtype]}, {g.channels}>",
        THREADS,
        max(
            (AHEAD + 1) * (POSITIONS + g.channels) * ROW_BYTES, POSITIONS * max(stride, g.channels + SUM_PADDING) * WORD
        ),
        walks,
        g.blocks,
        sectors=g.chunks * CHUNK / SECTOR,
        lines=g.chunks * CHUNK / ROW_BYTES,
    )


def _put(g: Gather, run: Loop, residual: bool) -> list[Walk]:
    """Sums on their way out: 16 bytes of channels at a time, or two by two."""
    writes = [loop for loop in run.inner if loop.count("STG")]
    write = next(loop for loop in writes if bool(loop.count("STG.E.128")) == g.wide)
    stride, lanes, together = _stride(g), range(WARP), g.layer.pack if g.wide else 2
    turns = POSITIONS * g.channels // together // THREADS * WARPS * g.blocks
    if g.wide:
        packs = g.channels // together
        words = [lane // packs * stride + lane % packs * together for lane in lanes]
        words = [word + word % stride // 32 * SUM_GAP for word in words]
        conflicts = sum(bank_turns([word + i for word in words], 4) - 4 for i in range(0, together, 4))
    else:
        pairs = g.channels // 2 if g.layer.channels_last else max(g.phases // 2, 1)
        conflicts = bank_turns([lane // pairs * stride + lane % pairs * 2 for lane in lanes], 2) - 2
    path = write.path(*(("STG", "LDG") if residual else ("STG",)))
    if not g.layer.channels_last:
        # Lanes share the tables of channels; those of positions take as long as other loads of 16 bytes.
        loads = [i for i in path if i.is_one_of(("LDS",))]
        conflicts += len(loads) + 4 - sum(map(wavefronts, loads))
    return [Walk(path, turns * g.used, conflicts), Walk(write.path(), turns * (1 - g.used))]


def _pieces(offsets: torch.Tensor, itemsize: int, unit: int) -> int:
    """Pieces of ``unit`` bytes that the tiles of rows at these offsets (elements) meet, for one depth."""
    padded = torch.nn.functional.pad(offsets, (0, -len(offsets) % PACK_ROWS), value=int(offsets[-1]))
    at = (padded * itemsize // unit).unflatten(0, (-1, PACK_ROWS)).sort(1).values
    return int((at.diff(dim=1) != 0).sum()) + len(at)


def pack(rows: list[tuple[int, int]], depth: int, dtype: torch.dtype) -> Launch:
    """conv_pack_kernel. ``rows``: sizes and strides of the four axes beside depth, the last with neighbours."""
    offsets = torch.zeros(1, dtype=torch.int64)
    for size, apart in rows:
        offsets = (offsets[:, None] + torch.arange(size) * apart).flatten()
    padded = ceil_div(depth * dtype.itemsize, CHUNK) * CHUNK // dtype.itemsize
    tiles = ceil_div(padded, PACK_DEPTHS)
    blocks = ceil_div(len(offsets), PACK_ROWS) * tiles
    warps = blocks * PACK_THREADS // WARP
    read, written = depth / (tiles * PACK_DEPTHS), padded / (tiles * PACK_DEPTHS)

    def walks(code: Kernel) -> list[Walk]:
        loop = max(code.body.inner, key=lambda inner: inner.count("STG"))
        turns = PACK_ROWS * PACK_DEPTHS // PACK_THREADS / loop.count("STG")
        return [
            Walk(code.body.path("LDG", "STS", "BAR"), warps * read),
            Walk(code.body.path("STS", "BAR"), warps * (1 - read)),
            Walk(loop.path("STG"), warps * turns * written),
            Walk(loop.path(), warps * turns * (1 - written)),
        ]

    size = dtype.itemsize
    return walked(
        f"conv_pack_kernel<{TYPES[dtype]}>",
        PACK_THREADS,
        0,
        walks,
        blocks,
        sectors=_pieces(offsets, size, SECTOR) * depth + len(offsets) * padded * size / SECTOR,
        lines=_pieces(offsets, size, LINE) * depth + len(offsets) * padded * size / LINE,
    )


def pack_weight(layer: Layer) -> Launch:
    across, k = layer.outputs, layer.kernel
    of_in, of_out, of_y, of_x = (
        (across * k * k, 1, k * across, across) if layer.channels_last else (across * k * k, k * k, k, 1)
    )
    depthwise = layer.groups > 1 and layer.inputs == layer.outputs == 1
    if depthwise:
        return pack([(1, 0), (1, 0), (k, of_y), (k, of_x)], layer.groups, layer.dtype)
    rows, of_row, depth = (
        (layer.outputs, of_out, layer.inputs) if layer.forward else (layer.inputs, of_in, layer.outputs)
    )
    return pack([(layer.groups, layer.inputs * of_in), (rows, of_row), (k, of_y), (k, of_x)], depth, layer.dtype)


def pack_map(layer: Layer, side: str) -> list[Launch]:
    """A copy with channels side by side and padded, where the map itself is not."""
    if layer.wide(side):
        return []
    height, width = layer.size(side)
    channels, planes = layer.channels(side), layer.groups * layer.channels(side)
    of_pixel, of_channel = (planes, 1) if layer.channels_last else (1, height * width)
    rows = [(layer.batch, planes * height * width), (layer.groups, channels * of_channel)]
    return [pack([*rows, (height, width * of_pixel), (width, of_pixel)], channels, layer.dtype)]


def packed_bytes(layer: Layer, *sides: str) -> int:
    """Written by ``pack_map``."""
    copied = [side for side in sides if not layer.wide(side)]
    return (
        sum(layer.elements(s) // layer.channels(s) * layer.padded(layer.channels(s)) for s in copied)
        * layer.dtype.itemsize
    )


def convolution(layer: Layer, residual: bool = False) -> list[Launch]:
    """The forward, or the gradient of the input."""
    return [pack_weight(layer), *pack_map(layer, layer.read), gather(layer, residual)]


def depthwise(layer: Layer) -> list[Launch]:
    """conv_depthwise_kernel: a thread 16 bytes of a row's outputs, or of a pixel's channels."""
    planar, pixel = not layer.channels_last, layer.groups
    height, width = layer.size(OUTPUT)
    vector = layer.pack if planar or layer.groups % layer.pack == 0 else 1
    row = ceil_div(width, vector) * layer.groups if planar else width * ceil_div(pixel, vector)
    warps = ceil_div(layer.batch * height * row, WARP)
    taps = layer.kernel // layer.stride
    wide = not planar or width % vector == 0

    def walks(code: Kernel) -> list[Walk]:
        (rows,) = code.body.inner
        end = ("STG.E.128",) if wide and vector > 1 else ("STG",)
        found = [Walk(code.body.path(*end), warps), Walk(rows.path("LDG"), warps * taps)]
        return found + [Walk(column.path("LDG"), warps * taps * taps) for column in rows.inner]

    # What a block of 256 threads reads of each of its rows of the input; weights stay in the L1 cache.
    outputs = 256 * vector // (1 if planar else pixel)
    high = max(1.0, outputs / width)
    read = taps * max(high / layer.stride, 1) * (min(outputs, width) / layer.stride + taps)
    values = read * (1 if planar else pixel)
    kernel = f"conv_depthwise_kernel<{TYPES[layer.dtype]}, {vector}, {str(planar).lower()}>"
    loads = warps * taps * taps * 2 * (vector if planar else 1)
    blocks = ceil_div(warps, 8)
    sectors = blocks * values * layer.dtype.itemsize / SECTOR
    return [pack_weight(layer), walked(kernel, 256, 0, walks, blocks, sectors=sectors, lines=loads)]


def grad_weight(layer: Layer) -> list[Launch]:
    """conv_grad_weight_kernel, and the sum of its parts."""
    g = conv_geometry.weight_gradient(layer)

    def walks(code: Kernel) -> list[Walk]:
        (tap,) = [loop for loop in code.body.inner if loop.count(COPY)]
        steps = Steps.of(tap, layer.dtype)
        # One warp also finds the pixels of a step to come.
        locate = Walk(longer(steps.main, (COPY, steps.multiply), "STS"), g.steps)
        found = steps.walks(layer, g.channels, g.steps // g.blocks, WARPS * g.blocks)
        ends = [Walk(code.body.path(), WARPS * g.blocks), Walk(tap.path("BAR", "STG"), WARPS * g.blocks)]
        return [*ends, *found, locate]

    def total(code: Kernel) -> list[Walk]:
        warps = ceil_div(layer.weights, WARP)
        loop = max(code.body.inner, key=lambda inner: inner.count("LDG"))
        turns = g.parts / loop.count("LDG")
        return [Walk(code.body.path("STG"), warps), Walk(loop.path("LDG"), warps * turns)]

    partials = partial_bytes(layer)
    # Lines of depth are 256 and 128 bytes of channels.
    first = walked(
        f"conv_grad_weight_kernel<{TYPES[layer.dtype]}>",
        THREADS,
        (AHEAD + 1) * (POSITIONS + g.channels) * ROW_BYTES,
        walks,
        g.blocks,
        sectors=(g.chunks * CHUNK + partials) / SECTOR,
        lines=g.chunks * CHUNK / LINE,
    )
    last = f"conv_grad_weight_total_kernel<{TYPES[layer.dtype]}, float>"
    end = walked(last, 256, 0, total, sectors=partials / SECTOR, lines=partials / LINE)
    return [*pack_map(layer, INPUT), *pack_map(layer, OUTPUT), first, end]


def partial_bytes(layer: Layer) -> int:
    """Written before they are added up."""
    return conv_geometry.weight_gradient(layer).parts * layer.weights * 4


def mask_head(layer: Layer) -> list[Launch]:
    """mask_head_predict_kernel: blocks of pixels by the four phases; in each, hidden channels 64 at a time."""
    g = conv_geometry.mask_head(layer)
    stride = g.channels + MASK_SUM_PADDING
    tiles = WARPS * g.blocks * ceil_div(layer.outputs, g.channels)

    def walks(code: Kernel) -> list[Walk]:
        (tile,) = [loop for loop in code.body.inner if loop.count(COPY)]
        add = next(loop for loop in tile.inner if not loop.count(COPY))
        return [
            Walk(code.body.path("STG"), WARPS * g.blocks),
            Walk(tile.path(COPY, "STS", "BAR"), tiles, sums_conflicts(layer, g.channels, stride, False)),
            *Steps.of(tile, layer.dtype).walks(layer, g.channels, WARPS * g.steps // tiles, tiles),
            Walk(add.path("LDS"), tiles * g.channels / add.count("LDS")),
        ]

    product = walked(
        f"mask_head_predict_kernel<{TYPES[layer.dtype]}>",
        THREADS,
        max((AHEAD + 1) * (POSITIONS + g.channels) * ROW_BYTES, POSITIONS * stride * WORD),
        walks,
        g.blocks,
        sectors=g.chunks * CHUNK / SECTOR,
        # A warp's pixels are mostly of one RoI: one weight and one bias each channel.
        lines=g.chunks * CHUNK / ROW_BYTES + WARPS * g.blocks * layer.outputs * 2,
    )
    return [pack_weight(layer), *pack_map(layer, INPUT), product]
