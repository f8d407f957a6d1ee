"""The region proposal stage: the best of each level (``_top_k.py``), two kernels of a lane a slot around torch's own
sigmoid and exponential, and the NMS of ``nms.py``.

An image has a slot for each of the best scores of each level, level after level. A level's maps are read by a launch of
their own, since they differ in address, size and strides. Nothing returns to the host.
"""

from __future__ import annotations

from collections.abc import Iterator

import torch
import triton
import triton.language as tl
from structops.triton_kernels._launch import Launch, double_bits, run
from structops.triton_kernels._top_k import ScoreMap, top_k
from structops.triton_kernels.nms_padded import nms_padded

_BLOCK = 256


@triton.jit
def _double(bits, like):
    """A number in the type of a tensor's elements."""
    return bits.to(tl.int64).to(tl.float64, bitcast=True).to(like.dtype.element_ty)


@triton.jit
def _divide(a, b):
    # The plain operator on float32 is a faster, inexact division.
    return tl.div_rn(a, b) if a.dtype == tl.float32 else a / b


@triton.jit
def _slots(chosen, image, chosen_stride, slots, BLOCK: tl.constexpr):
    """This program's ranks in a level, which of them are slots, and the index of each one's score."""
    rank = tl.program_id(0) * BLOCK + tl.arange(0, BLOCK)
    mine = rank < slots
    return rank, mine, tl.load(chosen + image * chosen_stride + rank, mask=mine, other=0).to(tl.int64)


@triton.jit(do_not_specialize=["slots", "first", "all_slots", "width_bits", "height_bits", "clip_bits"])
def proposal_codes_kernel(
    objectness,  # [B, A, H, W]
    deltas,  # [B, 4A, H, W]
    chosen,  # [B, levels, best] int32, from this level on
    logits,  # [B, all_slots], written from `first` on
    codes,  # [B, all_slots, 2], written: clamped dw, dh; None: there are no anchors
    width_bits,  # weights of dw and dh
    height_bits,
    clip_bits,
    chosen_stride,
    slots,
    first,
    all_slots,
    cell,  # A
    width,  # W
    score_b,
    score_c,
    score_h,
    score_w,
    delta_b,
    delta_c,
    delta_h,
    delta_w,
    BLOCK: tl.constexpr,
):
    image = tl.program_id(1).to(tl.int64)
    rank, mine, index = _slots(chosen, image, chosen_stride, slots, BLOCK)
    a = index % cell
    at = index // cell
    x = at % width
    y = at // width
    score = tl.load(objectness + image * score_b + a * score_c + y * score_h + x * score_w, mask=mine, other=0.0)
    slot = image * all_slots + first + rank
    tl.store(logits + slot, score.to(logits.dtype.element_ty), mask=mine)
    if codes is not None:
        delta = deltas + image * delta_b + a * 4 * delta_c + y * delta_h + x * delta_w
        clip = _double(clip_bits, codes)
        w = tl.load(delta + 2 * delta_c, mask=mine, other=0.0).to(codes.dtype.element_ty)
        h = tl.load(delta + 3 * delta_c, mask=mine, other=0.0).to(codes.dtype.element_ty)
        w = _divide(w, tl.zeros_like(w) + _double(width_bits, codes))
        h = _divide(h, tl.zeros_like(h) + _double(height_bits, codes))
        # NaN stays.
        tl.store(codes + slot * 2, tl.where(w > clip, clip, w), mask=mine)
        tl.store(codes + slot * 2 + 1, tl.where(h > clip, clip, h), mask=mine)


@triton.jit
def _clamp(v, high):
    """To [0, high]; NaN stays."""
    v = tl.where(v < 0.0, 0.0, v)
    return tl.where(v > high, high, v)


@triton.jit(do_not_specialize=["slots", "first", "all_slots", "level", "x_bits", "y_bits", "size_bits", "score_bits"])
def proposal_boxes_kernel(
    deltas,  # [B, 4A, H, W]
    anchors,  # [A, 4] or [H * W * A, 4]; None: deltas are boxes
    chosen,  # [B, levels, best] int32, from this level on
    scores,  # [B, all_slots]
    exponentials,  # [B, all_slots, 2] of dw, dh; None with anchors
    image_sizes,  # [B, 2] (height, width)
    boxes,  # [B, all_slots, 4], written from `first` on
    levels,  # [B, all_slots] int64, written
    takes,  # [B, all_slots] int8, written: 1 where the box takes part
    x_bits,  # weights of dx and dy
    y_bits,
    size_bits,  # least size and score
    score_bits,
    chosen_stride,
    slots,
    first,
    all_slots,
    level,
    cell,
    width,
    delta_b,
    delta_c,
    delta_h,
    delta_w,
    stride_y,
    stride_x,
    GRID: tl.constexpr,  # anchors are those of the cell (0, 0)
    BLOCK: tl.constexpr,
):
    image = tl.program_id(1).to(tl.int64)
    rank, mine, index = _slots(chosen, image, chosen_stride, slots, BLOCK)
    a = index % cell
    at = index // cell
    x = at % width
    y = at // width
    kind = boxes.dtype.element_ty
    delta = deltas + image * delta_b + a * 4 * delta_c + y * delta_h + x * delta_w
    x1 = tl.load(delta, mask=mine, other=0.0).to(kind)
    y1 = tl.load(delta + delta_c, mask=mine, other=0.0).to(kind)
    slot = image * all_slots + first + rank
    if anchors is None:
        x2 = tl.load(delta + 2 * delta_c, mask=mine, other=0.0).to(kind)
        y2 = tl.load(delta + 3 * delta_c, mask=mine, other=0.0).to(kind)
    else:
        dx = _divide(x1, tl.zeros_like(x1) + _double(x_bits, boxes))
        dy = _divide(y1, tl.zeros_like(y1) + _double(y_bits, boxes))
        anchor = anchors + (a if GRID else index) * 4
        x1 = tl.load(anchor, mask=mine, other=0.0)
        y1 = tl.load(anchor + 1, mask=mine, other=0.0)
        x2 = tl.load(anchor + 2, mask=mine, other=0.0)
        y2 = tl.load(anchor + 3, mask=mine, other=0.0)
        if GRID:
            shift_x = (x * stride_x).to(kind)
            shift_y = (y * stride_y).to(kind)
            x1 = shift_x + x1
            y1 = shift_y + y1
            x2 = shift_x + x2
            y2 = shift_y + y2
        w = x2 - x1
        h = y2 - y1
        centre_x = dx * w + (x1 + 0.5 * w)
        centre_y = dy * h + (y1 + 0.5 * h)
        half_w = 0.5 * (tl.load(exponentials + slot * 2, mask=mine, other=0.0) * w)
        half_h = 0.5 * (tl.load(exponentials + slot * 2 + 1, mask=mine, other=0.0) * h)
        x1 = centre_x - half_w
        y1 = centre_y - half_h
        x2 = centre_x + half_w
        y2 = centre_y + half_h
    height_of = tl.load(image_sizes + image * 2)
    width_of = tl.load(image_sizes + image * 2 + 1)
    x1 = _clamp(x1, width_of)
    y1 = _clamp(y1, height_of)
    x2 = _clamp(x2, width_of)
    y2 = _clamp(y2, height_of)
    tl.store(boxes + slot * 4, x1, mask=mine)
    tl.store(boxes + slot * 4 + 1, y1, mask=mine)
    tl.store(boxes + slot * 4 + 2, x2, mask=mine)
    tl.store(boxes + slot * 4 + 3, y2, mask=mine)
    tl.store(levels + slot, tl.zeros([BLOCK], tl.int64) + level, mask=mine)
    least = _double(size_bits, boxes)
    score = tl.load(scores + slot, mask=mine, other=0.0)
    taking = (x2 - x1 >= least) & (y2 - y1 >= least) & (score >= _double(score_bits, boxes))
    tl.store(takes + slot, taking.to(tl.int8), mask=mine)


@triton.jit(do_not_specialize=["count", "all_slots", "post"])
def gather_proposals_kernel(
    kept,  # [B, post] int64, -1 for none
    boxes,  # [B, all_slots, 4]
    scores,  # [B, all_slots]
    proposals,  # [B, post, 4], written
    proposal_scores,  # [B, post], written
    count,  # B * post
    all_slots,
    post,
    BLOCK: tl.constexpr,
):
    i = tl.program_id(0).to(tl.int64) * BLOCK + tl.arange(0, BLOCK)
    slot = tl.load(kept + i, mask=i < count, other=-1)
    mine = slot >= 0
    source = i // post * all_slots + slot
    for coordinate in tl.static_range(4):
        value = tl.load(boxes + source * 4 + coordinate, mask=mine, other=0.0)
        tl.store(proposals + i * 4 + coordinate, value, mask=i < count)
    tl.store(proposal_scores + i, tl.load(scores + source, mask=mine, other=0.0), mask=i < count)


def _score_map(objectness: torch.Tensor) -> ScoreMap:
    images, cell, height, width = objectness.shape
    of_image, of_cell, of_row, of_column = objectness.stride()
    return ScoreMap(objectness, (height, width, cell), (of_row, of_column, of_cell), images, of_image)


# A fused multiply-add would round boxes differently from the definition.
_EXACT = {"num_warps": 4, "enable_fp_fusion": False}


class _Level:
    """What both kernels of a level take."""

    def __init__(self, objectness, deltas, chosen: torch.Tensor, first: int, slots: int, all_slots: int) -> None:
        self.grid = (triton.cdiv(slots, _BLOCK), objectness.shape[0])
        self.arguments = {
            "deltas": deltas,
            "chosen": chosen,
            "chosen_stride": chosen.stride(0),
            "slots": slots,
            "first": first,
            "all_slots": all_slots,
            "cell": objectness.shape[1],
            "width": objectness.shape[3],
            **{f"delta_{axis}": stride for axis, stride in zip("bchw", deltas.stride(), strict=True)},
            "BLOCK": _BLOCK,
        }
        self.objectness = objectness

    def codes(self, logits: torch.Tensor, codes: torch.Tensor | None, weights: list[float], clip: float) -> Launch:
        numbers = {
            "width_bits": double_bits(weights[2]),
            "height_bits": double_bits(weights[3]),
            "clip_bits": double_bits(clip),
            **{f"score_{axis}": stride for axis, stride in zip("bchw", self.objectness.stride(), strict=True)},
        }
        mine = {"objectness": self.objectness, "logits": logits, "codes": codes, **numbers}
        return Launch(proposal_codes_kernel, self.grid, {**self.arguments, **mine}, _EXACT)

    def boxes(
        self,
        level: int,
        anchors: torch.Tensor | None,
        strides: list[int],
        weights: list[float],
        least: tuple[float, float],
        tensors: dict[str, torch.Tensor | None],
    ) -> Launch:
        numbers = {
            "x_bits": double_bits(weights[0]),
            "y_bits": double_bits(weights[1]),
            "size_bits": double_bits(least[0]),
            "score_bits": double_bits(least[1]),
            "level": level,
            "stride_y": strides[0] if strides else 0,
            "stride_x": strides[1] if strides else 0,
            "GRID": bool(strides),
        }
        mine = {"anchors": anchors, **tensors, **numbers}
        return Launch(proposal_boxes_kernel, self.grid, {**self.arguments, **mine}, _EXACT)


def _gather_launch(kept: torch.Tensor, boxes: torch.Tensor, scores: torch.Tensor):
    images, post = kept.shape
    proposals = torch.empty((images, post, 4), dtype=boxes.dtype, device=boxes.device)
    found = torch.empty((images, post), dtype=boxes.dtype, device=boxes.device)
    arguments = {"kept": kept, "boxes": boxes, "scores": scores, "proposals": proposals, "proposal_scores": found}
    arguments |= {"count": images * post, "all_slots": scores.shape[1], "post": post, "BLOCK": _BLOCK}
    grid = (triton.cdiv(images * post, _BLOCK),)
    return proposals, found, Launch(gather_proposals_kernel, grid, arguments, {"num_warps": 4})


def generate_proposals(
    objectness: list[torch.Tensor],
    deltas: list[torch.Tensor],
    image_sizes: torch.Tensor,
    anchors: list[torch.Tensor],
    strides: list[int],
    pre_nms_top_n: int,
    post_nms_top_n: int,
    nms_thresh: float,
    min_size: float,
    score_thresh: float,
    weights: list[float],
    bbox_xform_clip: float,
) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """Proposals ``[B, post_nms_top_n, 4]``, their scores and how many there are."""
    first, compute = objectness[0], torch.promote_types(objectness[0].dtype, torch.float32)
    images, device = first.shape[0], first.device
    slots = [min(pre_nms_top_n, o.shape[1] * o.shape[2] * o.shape[3]) for o in objectness]
    count = sum(slots)
    if images * count * post_nms_top_n == 0:
        size = (images, post_nms_top_n)
        counts = torch.zeros(images, dtype=torch.int64, device=device)
        return first.new_zeros((*size, 4), dtype=compute), first.new_zeros(size, dtype=compute), counts

    chosen = top_k([_score_map(o) for o in objectness], max(slots))[:, :, 0]
    levels = [
        _Level(o, d, chosen[:, i], sum(slots[:i]), slots[i], count)
        for i, (o, d) in enumerate(zip(objectness, deltas, strict=True))
    ]
    scores = torch.empty((images, count), dtype=compute, device=device)
    exponentials = torch.empty((images, count, 2), dtype=compute, device=device) if anchors else None
    run(device, [level.codes(scores, exponentials, weights, bbox_xform_clip) for level in levels])
    scores.sigmoid_()
    if exponentials is not None:
        exponentials.exp_()

    boxes = torch.empty((images, count, 4), dtype=compute, device=device)
    level_of = torch.empty((images, count), dtype=torch.int64, device=device)
    takes = torch.empty((images, count), dtype=torch.int8, device=device)
    tensors = {
        "scores": scores,
        "exponentials": exponentials,
        "image_sizes": image_sizes.to(compute).contiguous(),
        "boxes": boxes,
        "levels": level_of,
        "takes": takes,
    }
    priors = [a.to(compute).contiguous() for a in anchors] or [None] * len(levels)
    least = (min_size, score_thresh)
    run(
        device,
        [
            level.boxes(i, priors[i], strides[2 * i : 2 * i + 2], weights, least, tensors)
            for i, level in enumerate(levels)
        ],
    )
    kept, counts = nms_padded(boxes, scores, level_of, takes.view(torch.bool), nms_thresh, post_nms_top_n, None)
    proposals, proposal_scores, launch = _gather_launch(kept, boxes, scores)
    run(device, [launch])
    return proposals, proposal_scores, counts


def ahead_of_time() -> Iterator[tuple[str, Launch]]:
    """The launches of typical calls, named: what has to compile for every target without a GPU at hand."""
    for dtype in (torch.float16, torch.bfloat16, torch.float32, torch.float64):
        compute, name = torch.promote_types(dtype, torch.float32), str(dtype)[6:]
        maps = (
            torch.empty(2, 3, 50, 84, dtype=dtype, device="meta"),
            torch.empty(2, 12, 50, 84, dtype=dtype, device="meta"),
        )
        chosen = torch.empty(2, 5, 1000, dtype=torch.int32, device="meta")[:, 2]
        scores, boxes = (torch.empty(2, 4819, *end, dtype=compute, device="meta") for end in ((), (4,)))
        sizes = torch.empty(2, 4819, 2, dtype=compute, device="meta")
        anchors = torch.empty(3, 4, dtype=compute, device="meta")
        tensors = {"scores": scores, "image_sizes": torch.empty(2, 2, dtype=compute, device="meta"), "boxes": boxes}
        tensors |= {"levels": torch.empty(2, 4819, dtype=torch.int64, device="meta")}
        tensors |= {"takes": torch.empty(2, 4819, dtype=torch.int8, device="meta")}
        level = _Level(*maps, chosen, 2000, 1000, 4819)
        ones = [1.0] * 4
        yield f"{name}-anchors", level.codes(scores, sizes, ones, 4.0)
        yield f"{name}-boxes", level.codes(scores, None, ones, 4.0)
        for strides in ([16, 16], []):
            yield f"{name}-anchors", level.boxes(2, anchors, strides, ones, (0, 0), {**tensors, "exponentials": sizes})
        yield f"{name}-boxes", level.boxes(2, None, [], ones, (0, 0), {**tensors, "exponentials": None})
        kept = torch.empty(2, 1000, dtype=torch.int64, device="meta")
        yield name, _gather_launch(kept, boxes, scores)[2]
