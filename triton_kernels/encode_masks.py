"""Run-length encoding of masks in COCO's compressed form: a column of a mask a lane, then a run a lane, each twice."""

from __future__ import annotations

from collections.abc import Iterator

import torch
import triton
import triton.language as tl
from structops.triton_kernels._launch import Launch, run

_COLUMNS, _RUNS = 64, 256


@triton.jit
def _pixel(masks, row, column, inside, row_bytes, PACKED: tl.constexpr):
    if PACKED:
        byte = tl.load(masks + row * row_bytes + column // 8, mask=inside, other=0).to(tl.int32)
        found = (byte >> (column % 8).to(tl.int32)) & 1
    else:
        found = (tl.load(masks + row * row_bytes + column, mask=inside, other=0) != 0).to(tl.int32)
    return found


@triton.jit
def _before_column(masks, column, inside, height, row_bytes, PACKED: tl.constexpr):
    """The pixel before the first of each column: the last of the column before."""
    return _pixel(
        masks, tl.cast(height, tl.int64) - 1, column - 1, inside & (column > 0) & (height > 0), row_bytes, PACKED
    )


@triton.jit(do_not_specialize=["height", "width", "row_bytes", "columns", "tiles"])
def count_changes_kernel(
    masks,  # [K, height, row_bytes] int8
    changes,  # [K, columns] int32, written
    height,
    width,
    row_bytes,
    columns,
    tiles,
    PACKED: tl.constexpr,
    COLUMNS: tl.constexpr,
):
    k = (tl.program_id(0) // tiles).to(tl.int64)
    column = (tl.program_id(0) % tiles * COLUMNS + tl.arange(0, COLUMNS)).to(tl.int64)
    mask = masks + k * height * row_bytes
    inside = column < width
    before = _before_column(mask, column, inside, height, row_bytes, PACKED)
    count = tl.zeros([COLUMNS], tl.int32)
    for row in range(0, height):
        here = _pixel(mask, tl.cast(row, tl.int64), column, inside, row_bytes, PACKED)
        count += here ^ before
        before = here
    # A mask without pixels has a column all the same; where there is no pixel nothing changes.
    tl.store(changes + k * columns + column, tl.where(inside, count, 0), mask=column < columns)


@triton.jit(do_not_specialize=["height", "width", "row_bytes", "columns", "tiles"])
def write_ends_kernel(
    masks,  # [K, height, row_bytes] int8
    until,  # [K, columns] int64: sum of the changes up to each column, with it
    ends,  # [runs] int32, written
    height,
    width,
    row_bytes,
    columns,
    tiles,
    PACKED: tl.constexpr,
    COLUMNS: tl.constexpr,
):
    k = (tl.program_id(0) // tiles).to(tl.int64)
    column = (tl.program_id(0) % tiles * COLUMNS + tl.arange(0, COLUMNS)).to(tl.int64)
    mask = masks + k * height * row_bytes
    inside = column < width
    place = k * columns + column
    known = (column < columns) & (place > 0)
    at = k + tl.load(until + place - 1, mask=known, other=0)  # each mask has a run more than changes
    before = _before_column(mask, column, inside, height, row_bytes, PACKED)
    for row in range(0, height):
        here = _pixel(mask, tl.cast(row, tl.int64), column, inside, row_bytes, PACKED)
        changed = here ^ before
        tl.store(ends + at, (column * height + row).to(tl.int32), mask=changed != 0)
        at += changed
        before = here
    pixels = tl.zeros([COLUMNS], tl.int32) + width * height
    tl.store(ends + at, pixels, mask=column == columns - 1)


@triton.jit
def _end_of(until, k, columns, inside):
    """The run behind the last of mask k."""
    return tl.load(until + (k + 1) * columns - 1, mask=inside, other=0) + k + 1


@triton.jit
def _number(until, ends, run, runs, count, columns, STEPS: tl.constexpr):
    """The number that stands for a run, its mask, and whether it is that mask's last."""
    inside = run < runs
    low = tl.zeros_like(run)
    high = tl.zeros_like(run) + (count - 1)
    for _ in range(STEPS):
        middle = (low + high) // 2
        above = _end_of(until, middle, columns, inside) > run
        open = low < high
        high = tl.where(open & above, middle, high)
        low = tl.where(open & (above == 0), middle + 1, low)
    first = tl.where(low > 0, _end_of(until, low - 1, columns, inside & (low > 0)), 0)
    since = run - first
    end = tl.load(ends + run, mask=inside, other=0)
    length = end - tl.load(ends + run - 1, mask=inside & (since > 0), other=0)
    back = inside & (since > 2)
    earlier = tl.load(ends + run - 2, mask=back, other=0) - tl.load(ends + run - 3, mask=back, other=0)
    return length - earlier, low, run == _end_of(until, low, columns, inside) - 1


@triton.jit(do_not_specialize=["runs", "count", "columns"])
def count_characters_kernel(
    until,  # [K, columns] int64
    ends,  # [runs] int32
    characters,  # [runs] int32, written
    runs,
    count,
    columns,
    STEPS: tl.constexpr,
    RUNS: tl.constexpr,
):
    run = tl.program_id(0).to(tl.int64) * RUNS + tl.arange(0, RUNS)
    number, _, _ = _number(until, ends, run, runs, count, columns, STEPS)
    needed = tl.full([RUNS], 1, tl.int32)
    for _ in tl.static_range(6):
        needed += ((number < -16) | (number > 15)).to(tl.int32)
        number = number >> 5
    tl.store(characters + run, needed, mask=run < runs)


@triton.jit(do_not_specialize=["runs", "count", "columns"])
def write_text_kernel(
    until,  # [K, columns] int64
    ends,  # [runs] int32
    text_until,  # [runs] int64: sum of the characters up to each run, with it
    text,  # [characters] int8, written
    offsets,  # [K + 1] int64, written
    runs,
    count,
    columns,
    STEPS: tl.constexpr,
    RUNS: tl.constexpr,
):
    run = tl.program_id(0).to(tl.int64) * RUNS + tl.arange(0, RUNS)
    inside = run < runs
    number, k, last = _number(until, ends, run, runs, count, columns, STEPS)
    at = tl.load(text_until + run - 1, mask=inside & (run > 0), other=0)
    end = tl.load(text_until + run, mask=inside, other=0)
    for _ in tl.static_range(7):
        rest = number >> 5
        more = (at + 1 < end).to(tl.int32)
        tl.store(text + at, ((number & 31) + 48 + 32 * more).to(tl.int8), mask=inside & (at < end))
        number = rest
        at += 1
    tl.store(offsets + k + 1, end, mask=inside & last)
    tl.store(offsets + run, tl.zeros([RUNS], tl.int64), mask=run == 0)


def _by_column(masks: torch.Tensor, width: int | None) -> tuple[torch.Tensor, dict]:
    """An empty tensor of a count for each column, and what both kernels of columns take."""
    count, height, row_bytes = masks.shape
    pixels = row_bytes if width is None else width
    columns = max(pixels, 1)
    arguments = {
        "masks": masks.contiguous().view(torch.int8),
        "height": height,
        "width": pixels,
        "row_bytes": row_bytes,
        "columns": columns,
        "tiles": triton.cdiv(columns, _COLUMNS),
        "PACKED": width is not None,
        "COLUMNS": _COLUMNS,
    }
    return torch.empty((count, columns), dtype=torch.int32, device=masks.device), arguments


def _steps(masks: torch.Tensor, width: int | None, total, queue) -> tuple[torch.Tensor, torch.Tensor]:
    """Text and offsets; ``total`` adds up counts and says how many there are in all, ``queue`` takes a launch."""
    options = {"num_warps": 2}
    changes, by_column = _by_column(masks, width)
    count, columns = changes.shape
    grid = (count * by_column["tiles"],)
    queue(Launch(count_changes_kernel, grid, {**by_column, "changes": changes}, options))
    until, changed = total(changes.view(-1))
    runs = changed + count
    ends, characters = (torch.empty(runs, dtype=torch.int32, device=masks.device) for _ in range(2))
    queue(Launch(write_ends_kernel, grid, {**by_column, "until": until, "ends": ends}, options))
    by_run = {"until": until, "ends": ends, "runs": runs, "count": count, "columns": columns}
    by_run |= {"STEPS": (count - 1).bit_length(), "RUNS": _RUNS}
    grid = (triton.cdiv(runs, _RUNS),)
    queue(Launch(count_characters_kernel, grid, {**by_run, "characters": characters}, {"num_warps": 4}))
    text_until, length = total(characters)
    text = torch.empty(length, dtype=torch.uint8, device=masks.device)
    offsets = torch.empty(count + 1, dtype=torch.int64, device=masks.device)
    written = {"text_until": text_until, "text": text.view(torch.int8), "offsets": offsets}
    queue(Launch(write_text_kernel, grid, {**by_run, **written}, {"num_warps": 4}))
    return text, offsets


def encode_masks(masks: torch.Tensor, width: int | None) -> tuple[torch.Tensor, torch.Tensor]:
    """Of ``masks [K, H, W]``, or eight pixels of a row to a byte: texts ``[n]`` and their offsets ``[K + 1]``."""
    if masks.shape[0] == 0:
        return masks.new_empty(0, dtype=torch.uint8), masks.new_zeros(1, dtype=torch.int64)

    def total(counts: torch.Tensor) -> tuple[torch.Tensor, int]:
        until = counts.cumsum(0)
        return until, int(until[-1])  # waits for the GPU: the size of a result depends on it

    return _steps(masks, width, total, lambda launch: run(masks.device, [launch]))


def ahead_of_time() -> Iterator[tuple[str, Launch]]:
    """The launches of typical calls, named: what has to compile for every target without a GPU at hand."""
    for name, row_bytes, width in (("bfloat16-flags", 1333, None), ("bfloat16-packed", 167, 1333)):
        launches: list[Launch] = []
        masks = torch.empty((100, 800, row_bytes), dtype=torch.uint8, device="meta")
        _steps(masks, width, lambda counts: (counts.long(), 200_000), launches.append)
        yield from ((name, launch) for launch in launches)
