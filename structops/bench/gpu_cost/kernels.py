"""How often a workload goes round the loops of each kernel.

The numbers of a launch (threads, tiles, items a thread) repeat what the launchers in ``csrc`` decide; a kernel whose
loops are not as deep as is said here is refused rather than counted wrongly. Where the lanes of a warp have work of
different sizes, the warp is taken to do the largest of its RoI.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass

import torch

from structops.bench.gpu_cost.geometry import LINE, SECTOR, WARP, Map, most, pieces_of_planes, segments, spans
from structops.bench.gpu_cost.sass import Kernel, Loop

TYPES = {torch.float32: "float", torch.float16: "__half", torch.bfloat16: "__nv_bfloat16"}


def nothing(_: Kernel) -> float:
    return 0.0


@dataclass(frozen=True)
class Launch:
    """One kernel launch.

    Attributes:
        kernel: its short name.
        threads: of a block.
        shared: dynamic shared memory of a block, bytes.
        instructions: of all warps together, given the kernel's code.
        sectors: from and to the L2 cache; the outputs of a forward are left to the memory's limit.
        lines: looked up in the L1 cache.
        wavefronts: turns of the shared memory, 128 bytes each, where they are counted.
        tensor_flops: of the instructions for tensor cores.
        blocks: that have work of the same size; 0: left to chance.
    """

    kernel: str
    threads: int
    shared: int
    instructions: Callable[[Kernel], float]
    sectors: float = 0.0
    lines: float = 0.0
    wavefronts: Callable[[Kernel], float] = nothing
    tensor_flops: Callable[[Kernel], float] = nothing
    blocks: int = 0

    def share_of_busiest(self, multiprocessors: int) -> float:
        """Work of the multiprocessor that gets most blocks, over what it would have of equal shares."""
        if not self.blocks:
            return 1.0
        return ceil_div(self.blocks, multiprocessors) * multiprocessors / self.blocks


@dataclass(frozen=True)
class Call:
    """Tensors of a call: what the models need to know of them."""

    channels: int
    dtype: torch.dtype
    channels_last: bool

    @property
    def size(self) -> int:
        return self.dtype.itemsize

    @property
    def pack(self) -> int:
        """Values in 16 bytes."""
        return 16 // self.size


def rate_of(outer: Loop, inner: Loop, *payload: str) -> tuple[float, float]:
    """Instructions of one turn of ``outer`` apart from ``inner``, and for each payload instruction in either.

    A compiler unrolls the inner loop and puts the turns that are left over into the outer one; a turn is taken to
    cost the same in both.
    """
    each = len(inner.instructions) / inner.count(*payload)
    around = len(outer.own) - each * sum(i.is_one_of(payload) for i in outer.own)
    return max(around, 0.0), each


def _setup(kernel: Kernel, main: Loop, warps: int) -> float:
    """Of a block that fills a table and then loops: its straight code in every warp, its other loops in one, once."""
    others = [loop for loop in kernel.body.inner if loop is not main]
    return warps * len(kernel.body.own) + sum(len(loop.instructions) for loop in others)


def total(values: torch.Tensor) -> float:
    return float(values.double().sum())


def ceil_div(a: int, b: int) -> int:
    return (a + b - 1) // b


def _blocks_of_roi(rois: int, items: int, threads: int, items_a_thread: int) -> int:
    """Blocks that forward launchers cut a RoI into."""
    wanted = max(1, min(2048 // rois, ceil_div(items, threads * items_a_thread)))
    return ceil_div(items, ceil_div(ceil_div(items, wanted), threads) * threads)


def sectors_read(m: Map, call: Call, again: bool) -> float:
    """Sectors of the map that the RoIs read.

    Channels last: a block meets a pixel of one row of bins once, ``again`` for each row of bins that it is in, since
    three rows of 256 channels are as much as the L1 cache has for a block. Contiguous: once a RoI.
    """
    if call.channels_last:
        rows = m.row_counts.sum(1) if again else m.rows.any(1).sum(1)
        return total(rows * m.columns.any(1).sum(1)) * call.channels * call.size / SECTOR
    return total(m.rows.any(1).sum(1) * spans(m.columns, SECTOR // call.size)) * call.channels


def tabled_forward(maps: list[Map], call: Call, kernel: str, taps: bool) -> Launch:
    """roi_align, multiscale_roi_align and roi_pool: a block a RoI, items of one bin by some channels.

    ``taps``: tables of weighted pixels, else of the ends of bins.
    """
    rois, pooled = sum(m.rois for m in maps), maps[0].pooled
    bins, width = pooled**2, call.pack if call.channels_last else 4
    groups = ceil_div(call.channels, width)
    blocks = rois * _blocks_of_roi(rois, bins * groups, 128, 4)
    warps = bins * groups / WARP  # items of a RoI, by warps

    def instructions(code: Kernel) -> float:
        item, row, column = code.hottest("LDG", depth=3)
        around, each = rate_of(row, column, "LDG")
        issued = blocks * _setup(code, item, 4) + rois * warps * len(item.own)
        for m in maps:
            rows, columns = m.row_counts, m.column_counts
            if call.channels_last:  # one bin a warp; loads come in fours
                issued += total(rows.sum(1) * (around + each * 4 * (columns / 4).ceil()).sum(1)) * warps / bins
            else:
                issued += total(rows.amax(1) * (around + each * 4 * columns.amax(1))) * warps
        return issued

    lines = 0.0
    for m in maps:
        if call.channels_last:
            lines += total(m.row_counts.sum(1) * m.column_counts.sum(1)) * warps / bins * (16 * WARP / LINE)
        else:
            loads = m.row_counts.amax(1) * m.column_counts.amax(1) * width
            lines += total(loads * pieces_of_planes(m, call.size, LINE)) * warps
    # Two samples a bin are at most four taps; the table of a workload that samples adaptively is larger.
    samples = max(float(axis.max()) for m in maps if m.rois for axis in m.samples)
    shared = 2 * pooled * (8 + int(2 * samples) * 8) if taps else 2 * pooled * 8
    return Launch(kernel, 128, shared, instructions, sum(sectors_read(m, call, True) for m in maps), lines)


def _met(m: Map, tile_rows: int, tile_columns: int) -> torch.Tensor:
    """RoIs that reach into each tile ``[images, tiles_y, tiles_x]``."""
    down, across = segments(m.rows, tile_rows) > 0, segments(m.columns, tile_columns) > 0
    return torch.stack([down[m.image == n].float().T @ across[m.image == n].float() for n in range(m.images)])


def align_backward(maps: list[Map], call: Call, bounds: str) -> list[Launch]:
    """The bounds of all RoIs, then a launch a map."""
    rois = sum(m.rois for m in maps)
    first = Launch(bounds, 256, 0, lambda code: len(code.instructions) * math.ceil(rois / WARP))
    return [first, *(_gather(m, call, rois) for m in maps)]


def _gather(m: Map, call: Call, rois: int) -> Launch:
    """A block a tile of the gradient and a run of channels; a warp four pixels of a row (channels last), or two rows
    of sixteen."""
    if call.channels_last:
        name = f"roi_align_backward_kernel<{TYPES[call.dtype]}, 4, {call.pack}, true>"
        tile_rows, tile_columns, down, across, loads = 4, 8, 1, 4, 1
        runs = ceil_div(call.channels, WARP * call.pack)
    else:
        name = f"roi_align_backward_kernel<{TYPES[call.dtype]}, 1, 16, false>"
        tile_rows, tile_columns, down, across, loads = 16, 16, 2, 16, 16
        runs = ceil_div(call.channels, loads)
    met = _met(m, tile_rows, tile_columns)
    # Channels last: a thread goes through the bins of all its pixels. Contiguous: through its own pixel's, and the warp
    # as long as the busiest.
    turns = segments if call.channels_last else most
    rows, columns = turns(m.rows, down), turns(m.columns, across)
    visits = total(rows.sum(1) * columns.sum(1))

    def instructions(code: Kernel) -> float:
        window, batch, bin_y, bin_x, roi, bin_across, bin_down = code.hottest("LDG", depth=7)
        around, each = rate_of(bin_across, bin_down, "LDG")
        batches = (met / 16).ceil()
        # The weights of a batch: a thread a bin (which reads the boxes) or a line of pixels, then all go on.
        bins, lines = (met * 2 * m.pooled / WARP).ceil(), (met * (tile_rows + tile_columns) / WARP).ceil()
        fill = 8 * batches * (len(batch.own) + len(bin_y.own) + len(bin_x.own))
        for loop in bin_x.inner:
            if loop is not roi:
                fill += len(loop.instructions) * (bins if loop.count("LDG") else lines)
        once = met.numel() * 8 * (len(code.body.own) + math.ceil(rois / 1024) * len(window.own))
        pairs = total((rows > 0).sum(1) * columns.sum(1)) * around + visits * loads * each
        return runs * (once + total(fill) + 8 * total(met) * len(roi.own) + pairs)

    shared = 16 * (tile_rows + tile_columns) * (m.pooled * 4 + 8)
    tiles = segments(m.rows, tile_rows).sum(1) * segments(m.columns, tile_columns).sum(1)
    sectors = total(tiles) * call.channels * call.size / SECTOR
    # 512 bytes a load; or sixteen planes, whose two or so bins are a line each.
    return Launch(name, 256, shared, instructions, sectors, visits * runs * (4 if call.channels_last else 32))


def pool_backward(m: Map, call: Call) -> list[Launch]:
    """The bins of all RoIs, then a warp a tile and a run of channels."""
    width = call.pack if call.channels_last else 1
    pixels = 16384 // (WARP * width * 4)
    tile_rows = 8 if pixels >= 64 else 4
    tile_columns, loads = pixels // tile_rows, 2 if width == 8 else 4
    down, across = segments(m.rows, tile_rows), segments(m.columns, tile_columns)
    runs = ceil_div(call.channels, WARP * width)
    warps = down.shape[1] * across.shape[1] * m.images * runs
    hits = total((down > 0).sum(1) * (across > 0).sum(1)) * runs
    rows = total(down.sum(1) * (across > 0).sum(1)) * runs
    groups = total(down.sum(1) * (across / loads).ceil().sum(1)) * runs
    visits = total(down.sum(1) * across.sum(1)) * runs

    def instructions(code: Kernel) -> float:
        window, scan, roi, row, group = code.hottest("LDG", depth=5)
        inits = [loop for loop in code.body.inner if loop.count("STS") and loop.first < window.first]
        writes = [loop for loop in code.body.inner if loop.count("STG")]
        # The second way of writing is that of the contiguous layout. Either is a store a pixel or a lane's pixel.
        write = max(writes, key=lambda loop: loop.count("STG")) if call.channels_last else writes[-1]
        clear = pixels * width * sum(len(loop.instructions) / loop.count("STS") for loop in inits)
        tile = len(code.body.own) + clear + pixels * len(write.instructions) / write.count("STG")
        scans = math.ceil(m.rois / 128) * (len(window.own) + 4 * len(scan.own))
        meeting = len(roi.own) + sum(len(loop.instructions) for loop in roi.inner if loop is not row)
        return warps * (tile + scans) + hits * meeting + rows * len(row.own) + groups * len(group.instructions)

    prepare = Launch("roi_pool_bins_kernel", 128, 0, lambda code: len(code.instructions) * m.rois * 2 * m.pooled / WARP)
    shared = 4 * pixels * width * (33 if width == 1 else 32) * 4
    name = f"roi_pool_backward_kernel<{TYPES[call.dtype]}, {width}>"
    sectors = visits * WARP * width * (call.size + 4) / SECTOR
    lines = visits * (WARP * width * (call.size + 4) / LINE if call.channels_last else 2 * WARP)
    return [prepare, Launch(name, 128, shared, instructions, sectors, lines)]


def _ps_tables(m: Map) -> Launch:
    warps = math.ceil(m.rois * 2 * m.pooled / WARP)
    return Launch("ps_roi_tables_kernel<float>", 128, 0, lambda code: len(code.instructions) * warps)


def ps_forward(m: Map, call: Call) -> list[Launch]:
    """A thread an output element; the lanes of a warp are neighbouring bins, which have a channel each."""
    warps = call.channels / WARP
    blocks = m.rois * _blocks_of_roi(m.rois, call.channels, 128, 2)
    rows, columns = m.row_counts, m.column_counts

    def instructions(code: Kernel) -> float:
        item, row, column = code.hottest("LDG", depth=3)
        around, each = rate_of(row, column, "LDG")
        inner = around + each * (8 * (columns.amax(1) / 4).ceil() + 1)  # four taps and their pixels, the row's tap
        return blocks * _setup(code, item, 4) + warps * total(rows.amax(1) * inner + len(item.own))

    read = ps_sectors(m, call)
    return [_ps_tables(m), Launch(f"ps_roi_forward_kernel<{TYPES[call.dtype]}>", 128, 0, instructions, read, read)]


def ps_sectors(m: Map, call: Call) -> float:
    """No two outputs share a pixel of a channel: a sector a row of a bin, or a sector a pixel."""
    across = m.column_counts
    if not call.channels_last:
        across = (m.columns.unflatten(2, (-1, 1)).any(3).sum(2) * call.size / SECTOR + 1) * (across > 0)
    return total(m.row_counts.sum(1) * across.sum(1)) * call.channels / m.pooled**2


def ps_backward(m: Map, call: Call) -> list[Launch]:
    """A warp a plane of the gradient, tables in hand; eight lanes along the columns of a bin, four along its rows."""
    pixels = min(m.height * m.width, 10 * 1024 // 4)
    tiles = ceil_div(m.height * m.width, pixels)
    units = m.images * tiles * call.channels
    classes = call.channels / m.pooled**2
    rows, columns = m.row_counts, m.column_counts
    hits = total((rows > 0).sum(1) * (columns > 0).sum(1)) * classes
    turns = total((rows > 0).sum(1) * (columns / 8).ceil().sum(1)) * classes
    reads = total((rows / 4).ceil().sum(1) * (columns / 8).ceil().sum(1)) * classes

    def instructions(code: Kernel) -> float:
        window, hit, across, down = code.hottest("LDG", depth=4)
        around, each = rate_of(across, down, "LDG")
        clears = [loop for loop in code.body.inner if loop.count("STS") and loop.first < window.first]
        clear = min(len(loop.instructions) / loop.count("STS") for loop in clears) * pixels / WARP
        writes = [loop for loop in code.body.inner if loop.count("STG")]
        write = sum(len(loop.instructions) / loop.count("STG") for loop in writes) / len(writes) * pixels / WARP
        plane = len(code.body.own) + clear + write + math.ceil(m.rois / WARP) * len(window.own)
        return units * plane + hits * len(hit.own) + turns * around + reads * each

    shared = 4 * pixels * 4
    name = f"ps_roi_backward_kernel<{TYPES[call.dtype]}>"
    sectors = units * m.rois * 2 * 16 / SECTOR + (reads + turns) * 2 + hits
    if call.channels_last:
        sectors += m.images * m.height * m.width * call.channels  # a sector for each element written
    return [_ps_tables(m), Launch(name, 128, shared, instructions, sectors, sectors)]
