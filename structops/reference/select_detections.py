"""The last stage of a detector by its definition: one image after the other, in torchvision's order of operations."""

from __future__ import annotations

import torch

from structops.reference.nms import batched_nms

# On a CPU the last bit of torch.sigmoid depends on where an element lies: those that vectors leave over, at the end of
# a tensor or of a thread's share of it, take another exponential. Parts that one thread takes by itself, of whole
# vectors but for the last, make it independent of the number of threads.
SIGMOID_PART = 16384


def sigmoid_by_level(x: torch.Tensor, levels: list[int]) -> torch.Tensor:
    """``torch.sigmoid`` of ``[B, R, ...]``, as it rounds the R of each image and level as a tensor of their own."""
    parts = [
        torch.cat([part.sigmoid() for part in level.reshape(-1).split(SIGMOID_PART)]).view(level.shape)
        for image in x
        for level in image.split(levels)
    ]
    return torch.cat(parts).view(x.shape) if parts else x


def scores_of(
    class_scores: torch.Tensor, centerness: torch.Tensor | None, levels: list[int], sigmoid: bool
) -> torch.Tensor:
    """Scores ``[B, R, C]`` of logits ``[B, R, C]`` and, where the head has it, centerness ``[B, R]``."""
    if not sigmoid:
        return class_scores.softmax(-1)
    levels = levels or [class_scores.shape[1]]
    scores = sigmoid_by_level(class_scores, levels)
    return scores if centerness is None else (scores * sigmoid_by_level(centerness, levels)[..., None]).sqrt()


def best(scores: torch.Tensor, groups: torch.Tensor, limit: int) -> torch.Tensor:
    """Places, rising, of the ``limit`` best of each group among scores ``[N]``, ties by the lower place."""
    order = scores.argsort(descending=True, stable=True)
    order = order[groups[order].argsort(stable=True)]
    sizes = torch.bincount(groups)
    rank = torch.arange(len(order), device=order.device) - (sizes.cumsum(0) - sizes)[groups[order]]
    return order[rank < limit].sort().values


def decode(codes: torch.Tensor, priors: torch.Tensor, distances: bool, weights: list[float], clip: float):
    """Boxes ``[N, 4]`` from codes ``[N, 4]`` relative to boxes ``[N, 4]``: torchvision's BoxCoder, BoxLinearCoder."""
    x1, y1, x2, y2 = priors.unbind(-1)
    width, height = x2 - x1, y2 - y1
    if distances:
        x, y = 0.5 * (x1 + x2), 0.5 * (y1 + y2)
        left, top, right, bottom = codes.unbind(-1)
        corners = (x - left * width, y - top * height, x + right * width, y + bottom * height)
        return torch.stack(corners, -1)
    dx, dy, dw, dh = (code / weight for code, weight in zip(codes.unbind(-1), weights, strict=True))
    x, y = dx * width + (x1 + 0.5 * width), dy * height + (y1 + 0.5 * height)
    half_width, half_height = (0.5 * (size.clamp(max=clip).exp() * side) for size, side in ((dw, width), (dh, height)))
    return torch.stack((x - half_width, y - half_height, x + half_width, y + half_height), -1)


def clip_to_image(boxes: torch.Tensor, size: torch.Tensor) -> torch.Tensor:
    """Boxes ``[N, 4]`` within an image of size ``[2]`` (height, width); NaN stays."""
    limits = size.flip(0).repeat(2)
    boxes = boxes.clamp(min=0)
    return torch.where(boxes > limits, limits, boxes)


def select_detections(
    class_scores: torch.Tensor,
    box_deltas: torch.Tensor,
    proposals: torch.Tensor,
    image_sizes: torch.Tensor,
    valid: torch.Tensor | None,
    centerness: torch.Tensor | None,
    levels: list[int],
    sigmoid: bool,
    background: int,
    distances: bool,
    weights: list[float],
    bbox_xform_clip: float,
    score_thresh: float,
    nms_thresh: float,
    min_size: float | None,
    topk_candidates: int,
    per_class_topk: int,
    detections_per_img: int,
) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor, torch.Tensor]:
    """Boxes ``[B, D, 4]``, scores ``[B, D]``, labels ``[B, D]`` and counts ``[B]`` from logits ``[B, R, C]``, deltas
    ``[B, R, 4]`` or ``[B, R, 4 * C]`` and boxes ``[B, R, 4]`` or ``[R, 4]``; the public function has the rest."""
    data = [class_scores, box_deltas, proposals, *([] if centerness is None else [centerness])]
    compute = torch.float64 if any(t.dtype == torch.float64 for t in data) else torch.float32
    images, rows, _ = class_scores.shape
    boxes = box_deltas.new_zeros((images, detections_per_img, 4), dtype=compute)
    scores = box_deltas.new_zeros((images, detections_per_img), dtype=compute)
    labels = torch.full((images, detections_per_img), -1, dtype=torch.int64, device=boxes.device)
    counts = torch.zeros(images, dtype=torch.int64, device=boxes.device)
    all_scores = scores_of(
        class_scores.to(compute).contiguous(),
        None if centerness is None else centerness.to(compute).contiguous(),
        levels,
        sigmoid,
    )
    codes = box_deltas.to(compute).reshape(images, rows, box_deltas.shape[2] // 4, 4)
    level = torch.arange(max(len(levels), 1)).repeat_interleave(torch.tensor(levels or [rows])).to(boxes.device)
    for b in range(images):
        used = rows if valid is None else min(max(int(valid[b]), 0), rows)
        passed = all_scores[b, :used] > score_thresh
        if background >= 0:
            passed[:, background] = False
        if per_class_topk:  # candidates are listed class by class
            label, row = passed.t().nonzero().unbind(1)
        else:
            row, label = passed.nonzero().unbind(1)
        score = all_scores[b, row, label]
        if topk_candidates or per_class_topk:
            kept = best(score, label if per_class_topk else level[row], per_class_topk or topk_candidates)
            row, label, score = row[kept], label[kept], score[kept]
        priors = (proposals if proposals.dim() == 2 else proposals[b]).to(compute)
        of_class = label if codes.shape[2] > 1 else torch.zeros_like(label)
        box = decode(codes[b, row, of_class], priors[row], distances, weights, bbox_xform_clip)
        box = clip_to_image(box, image_sizes[b].to(compute))
        if min_size is not None:
            large = (box[:, 2:] - box[:, :2] >= min_size).all(1)
            box, score, label = box[large], score[large], label[large]
        kept = batched_nms(box, score, label, nms_thresh)[:detections_per_img]
        n = len(kept)
        boxes[b, :n], scores[b, :n], labels[b, :n], counts[b] = box[kept], score[kept], label[kept], n
    return boxes, scores, labels, counts
