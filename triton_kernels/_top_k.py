"""The best k of many scores: what csrc/common/cuda/top_k.h is, for the ops on Triton.

A program holds a part of a segment, finds the k-th of it by bisection and keeps what comes before; what the parts of a
segment keep is a shorter segment, until one part is left, whose choice is put in order. A score and its index are one
int64 there, so no two are equal. Doubles, which do not fit, and k beyond ``MAX_K`` take torch's stable sort instead.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import torch
import triton
import triton.language as tl
from structops.triton_kernels._launch import Launch, double_bits, run

MAX_K = 2048
_PART = 4 * MAX_K  # a round leaves a quarter at most
_ABSENT = tl.constexpr(2**63 - 1)  # after every score, NaN too; as an index, its lower half is -1


@dataclass(frozen=True)
class ScoreMap:
    """Segments of one shape: every class of every image of a map.

    Attributes:
        data: the tensor; the numbers below say which of its elements are scores.
        size, stride: of a segment; the score ``[i][j][l]`` has the index ``(i * size[1] + j) * size[2] + l``.
            Objectness ``[B, A, H, W]`` in the order (y, x, anchor) is ``(H, W, A)``.
        images, image_stride, classes, class_stride: where the segments are.
    """

    data: torch.Tensor
    size: tuple[int, int, int]
    stride: tuple[int, int, int]
    images: int
    image_stride: int
    classes: int = 1
    class_stride: int = 0

    @property
    def count(self) -> int:
        return math.prod(self.size)


@triton.jit
def _falling_key(score):
    """Rising int32 (int64 for doubles) for falling scores, -0 equal to 0; NaN last."""
    if score.dtype == tl.float64:
        bits = score.to(tl.int64, bitcast=True)
        magnitude = 0x7FFFFFFFFFFFFFFF
    else:
        score = score.to(tl.float32)
        bits = score.to(tl.int32, bitcast=True)
        magnitude = 0x7FFFFFFF
    rising = tl.where(bits < 0, bits ^ magnitude, bits)
    rising = tl.where(score == 0.0, 0, rising)
    return tl.where(score != score, magnitude - 1, ~rising)


@triton.jit
def _ranks(data, at, count, size1, size2, stride0, stride1, stride2, above_bits, FLOOR: tl.constexpr):
    """Rising int64, for doubles the key alone; absent where a score is out of range or not above the floor."""
    inside = at < count
    row = at // size2
    offset = (row // size1).to(tl.int64) * stride0 + (row % size1).to(tl.int64) * stride1
    score = tl.load(data + offset + (at % size2).to(tl.int64) * stride2, mask=inside, other=0.0)
    wanted = inside
    if FLOOR:
        wanted = inside & (score.to(tl.float64) > above_bits.to(tl.int64).to(tl.float64, bitcast=True))
    key = _falling_key(score).to(tl.int64)
    if score.dtype != tl.float64:
        key = (key << 32) | at.to(tl.int64)
    return tl.where(wanted, key, _ABSENT)


@triton.jit
def _keep_best(rank, out, k, K: tl.constexpr):
    """Writes the k smallest of ``rank``, in no order, and then absent ones, to ``out [k]``."""
    present = tl.sum((rank != _ABSENT).to(tl.int32), axis=0)
    # The smallest rank that k reach: a bit at a time, from the sign on, until exactly k reach what is tried.
    last = tl.full([], _ABSENT - 1, tl.int64)
    if present > k:
        reach = tl.sum((rank < 0).to(tl.int32), axis=0)
        low = tl.where(reach < k, 0, -0x8000000000000000).to(tl.int64)
        last = tl.where(reach == k, -1, low).to(tl.int64)
        bit = tl.full([], 1 << 62, tl.int64)
        while (bit > 0) & (reach != k):
            tried = low | (bit - 1)
            reach = tl.sum((rank <= tried).to(tl.int32), axis=0)
            low = tl.where(reach < k, low | bit, low)
            last = tl.where(reach == k, tried, low)
            bit = bit >> 1
    kept = rank <= last
    place = tl.cumsum(kept.to(tl.int32), axis=0) - 1
    tl.store(out + place, rank, mask=kept)
    rest = tl.arange(0, K)
    tl.store(out + rest, tl.full([K], _ABSENT, tl.int64), mask=(rest >= present) & (rest < k))


@triton.jit(do_not_specialize=["map", "maps", "count", "k", "above_bits"])
def top_k_map_kernel(
    data,
    out,  # [images, maps, classes, parts, k] int64, written for this map
    above_bits,
    map,
    maps,
    classes,
    count,
    size1,
    size2,
    stride0,
    stride1,
    stride2,
    image_stride,
    class_stride,
    k,
    FLOOR: tl.constexpr,
    PART: tl.constexpr,
    K: tl.constexpr,
):
    part = tl.program_id(0)
    image = tl.program_id(1) // classes
    of_class = tl.program_id(1) % classes
    data += image.to(tl.int64) * image_stride + of_class.to(tl.int64) * class_stride
    at = part * PART + tl.arange(0, PART)
    rank = _ranks(data, at, count, size1, size2, stride0, stride1, stride2, above_bits, FLOOR)
    segment = (image * maps + map) * classes + of_class
    _keep_best(rank, out + (segment.to(tl.int64) * tl.num_programs(0) + part) * k, k, K)


@triton.jit(do_not_specialize=["count", "k"])
def top_k_merge_kernel(
    ranks,  # [segments, count] int64
    out,  # [segments, parts, k] int64, written
    count,
    k,
    PART: tl.constexpr,
    K: tl.constexpr,
):
    part = tl.program_id(0)
    segment = tl.program_id(1).to(tl.int64)
    at = part * PART + tl.arange(0, PART)
    rank = tl.load(ranks + segment * count + at, mask=at < count, other=_ABSENT)
    _keep_best(rank, out + (segment * tl.num_programs(0) + part) * k, k, K)


@triton.jit(do_not_specialize=["k"])
def top_k_sort_kernel(
    ranks,  # [segments, k] int64, absent ones last
    indices,  # [segments, k] int32, written
    k,
    ROWS: tl.constexpr,
    COLUMNS: tl.constexpr,
):
    # A place is the number of smaller ranks: a few comparisons for each of many threads, no steps that wait.
    ranks += tl.program_id(1).to(tl.int64) * k
    row = tl.program_id(0) * ROWS + tl.arange(0, ROWS)
    mine = tl.load(ranks + row, mask=row < k, other=_ABSENT)
    place = tl.zeros([ROWS], tl.int32)
    for begin in range(0, k, COLUMNS):
        column = begin + tl.arange(0, COLUMNS)
        others = tl.load(ranks + column, mask=column < k, other=_ABSENT)
        place += tl.sum((others[None, :] < mine[:, None]).to(tl.int32), axis=1)
    place = tl.where(mine == _ABSENT, row, place)
    tl.store(indices + tl.program_id(1).to(tl.int64) * k + place, mine.to(tl.int32), mask=row < k)


@triton.jit(do_not_specialize=["count", "above_bits"])
def top_k_keys_kernel(
    data,
    keys,  # [images, classes, count] int64, written
    above_bits,
    classes,
    count,
    size1,
    size2,
    stride0,
    stride1,
    stride2,
    image_stride,
    class_stride,
    FLOOR: tl.constexpr,
    BLOCK: tl.constexpr,
):
    segment = tl.program_id(1).to(tl.int64)
    data += segment // classes * image_stride + segment % classes * class_stride
    at = tl.program_id(0) * BLOCK + tl.arange(0, BLOCK)
    rank = _ranks(data, at, count, size1, size2, stride0, stride1, stride2, above_bits, FLOOR)
    tl.store(keys + segment * count + at, rank, mask=at < count)


def _arguments(map_: ScoreMap, above: float) -> dict[str, object]:
    return {
        "data": map_.data,
        "above_bits": double_bits(above),
        "FLOOR": not math.isnan(above),
        "classes": map_.classes,
        "count": map_.count,
        "size1": max(map_.size[1], 1),  # divided by, in an empty map too
        "size2": max(map_.size[2], 1),
        **{f"stride{i}": s for i, s in enumerate(map_.stride)},
        "image_stride": map_.image_stride,
        "class_stride": map_.class_stride,
    }


def top_k_launches(maps: Sequence[ScoreMap], k: int, above: float) -> tuple[torch.Tensor, list[Launch]]:
    """``[images, maps, classes, k]`` int32 as :func:`top_k` returns it, and what computes it. No doubles, ``k`` from 1
    to ``MAX_K``, at least one segment."""
    first = maps[0]
    segments = first.images * len(maps) * first.classes
    block = {"PART": _PART, "K": triton.next_power_of_2(k)}
    options = {"num_warps": 16}  # 16 ranks a thread

    def ranks(parts: int) -> torch.Tensor:
        return torch.empty((segments, parts * k), dtype=torch.int64, device=first.data.device)

    parts = max(triton.cdiv(max(m.count for m in maps), _PART), 1)
    found, launches = ranks(parts), []
    for i, map_ in enumerate(maps):
        here = {**_arguments(map_, above), "out": found, "map": i, "maps": len(maps), "k": k, **block}
        launches.append(Launch(top_k_map_kernel, (parts, map_.images * map_.classes), here, options))
    while parts > 1:
        before, count = found, parts * k
        parts = triton.cdiv(count, _PART)
        found = ranks(parts)
        here = {"ranks": before, "out": found, "count": count, "k": k, **block}
        launches.append(Launch(top_k_merge_kernel, (parts, segments), here, options))
    indices = torch.empty((first.images, len(maps), first.classes, k), dtype=torch.int32, device=first.data.device)
    last = {"ranks": found, "indices": indices, "k": k, "ROWS": 32, "COLUMNS": 128}
    launches.append(Launch(top_k_sort_kernel, (triton.cdiv(k, 32), segments), last, {"num_warps": 4}))
    return indices, launches


def _keys_launch(map_: ScoreMap, above: float) -> tuple[torch.Tensor, Launch]:
    """``[images, classes, count]`` rising keys, and what computes them."""
    size = (map_.images, map_.classes, map_.count)
    keys = torch.empty(size, dtype=torch.int64, device=map_.data.device)
    arguments = {**_arguments(map_, above), "keys": keys, "BLOCK": 1024}
    grid = (triton.cdiv(map_.count, 1024), map_.images * map_.classes)
    return keys, Launch(top_k_keys_kernel, grid, arguments, {"num_warps": 4})


def _sorted_whole(map_: ScoreMap, k: int, above: float) -> torch.Tensor:
    """``[images, classes, k]`` int32 by a stable sort of every segment."""
    keys, launch = _keys_launch(map_, above)
    run(keys.device, [launch])
    best, order = keys.sort(stable=True)
    indices = order[..., :k].int().masked_fill(best[..., :k] == _ABSENT.value, -1)
    return torch.nn.functional.pad(indices, (0, k - indices.shape[-1]), value=-1)


def top_k(maps: Sequence[ScoreMap], k: int, above: float = math.nan) -> torch.Tensor:
    """Indices of the best k scores of each segment by falling score; ties by the lower index, NaN last.

    Args:
        maps: with the same number of images and of classes, and one dtype.
        above: only scores greater than it; NaN: all.

    Returns:
        ``[images, maps, classes, k]`` int32, -1 where there are no more.
    """
    first = maps[0]
    size = (first.images, len(maps), first.classes, k)
    if math.prod(size) == 0:
        return torch.empty(size, dtype=torch.int32, device=first.data.device)
    if first.data.dtype == torch.float64 or k > MAX_K:
        return torch.stack([_sorted_whole(map_, k, above) for map_ in maps], 1)
    indices, launches = top_k_launches(maps, k, above)
    run(first.data.device, launches)
    return indices


def ahead_of_time() -> Iterator[tuple[str, Launch]]:
    """The launches of typical calls, named: what has to compile for every target without a GPU at hand."""
    for dtype in (torch.float16, torch.bfloat16, torch.float32, torch.float64):
        data = torch.empty(2, 3, 200, 334, dtype=dtype, device="meta")
        for map_ in (
            ScoreMap(data, (200, 334, 3), (334, 1, 66800), 2, 200400),
            ScoreMap(data, (1, 1, 200400), (0, 0, 1), 2, 200400),
        ):
            name = f"{str(dtype)[6:]}-{map_.size[0]}"
            yield name, _keys_launch(map_, 0.5)[1]
            if dtype != torch.float64:
                for k, above in ((1000, math.nan), (100, 0.5)):
                    yield from ((f"{name}-{k}", launch) for launch in top_k_launches([map_], k, above)[1])
