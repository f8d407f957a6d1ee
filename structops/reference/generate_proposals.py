"""The region proposal stage by its definition: torchvision's, image by image and level by level."""

from __future__ import annotations

import torch

from structops.reference.nms import batched_nms, descending_order


def grid_anchors(cell: torch.Tensor, height: int, width: int, stride_y: int, stride_x: int) -> torch.Tensor:
    """``[height * width * A, 4]`` in the order (y, x, anchor): ``cell [A, 4]`` about each place of a grid."""
    y = torch.arange(height, device=cell.device) * stride_y
    x = torch.arange(width, device=cell.device) * stride_x
    y, x = torch.meshgrid(y, x, indexing="ij")
    shifts = torch.stack([x, y, x, y], 2).to(cell.dtype)
    return (shifts[:, :, None] + cell).reshape(-1, 4)


def decode(deltas: torch.Tensor, anchors: torch.Tensor, weights: list[float], clip: float) -> torch.Tensor:
    """Boxes ``[N, 4]`` from R-CNN's ``deltas [N, 4]`` of ``anchors [N, 4]``: torchvision's ``BoxCoder``."""
    width, height = anchors[:, 2] - anchors[:, 0], anchors[:, 3] - anchors[:, 1]
    x, y = anchors[:, 0] + 0.5 * width, anchors[:, 1] + 0.5 * height
    dx, dy, dw, dh = (delta / weight for delta, weight in zip(deltas.unbind(1), weights, strict=True))
    x, y = dx * width + x, dy * height + y
    sizes = torch.stack([dw, dh], 1).clamp(max=clip).exp()
    half_width, half_height = 0.5 * (sizes[:, 0] * width), 0.5 * (sizes[:, 1] * height)
    return torch.stack([x - half_width, y - half_height, x + half_width, y + half_height], 1)


def clip_to_image(boxes: torch.Tensor, height: torch.Tensor, width: torch.Tensor) -> torch.Tensor:
    x, y = boxes[:, 0::2], boxes[:, 1::2]
    x = torch.where(x < 0, 0.0, x)
    y = torch.where(y < 0, 0.0, y)
    return torch.stack([torch.where(x > width, width, x), torch.where(y > height, height, y)], 2).flatten(1)


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
    """Proposals ``[B, post_nms_top_n, 4]``, their scores and how many there are, from logits ``[B, A, H, W]`` and
    deltas ``[B, 4A, H, W]`` of each level. No anchors: the deltas are boxes."""
    compute = torch.promote_types(objectness[0].dtype, torch.float32)
    images, device = objectness[0].shape[0], objectness[0].device
    logits, boxes, levels = [], [], []
    for level, (score, delta) in enumerate(zip(objectness, deltas, strict=True)):
        _, cell, height, width = score.shape
        score = score.to(compute).permute(0, 2, 3, 1).reshape(images, height * width * cell)
        delta = delta.to(compute).view(images, cell, 4, height, width).permute(0, 3, 4, 1, 2)
        delta = delta.reshape(images, height * width * cell, 4)
        priors = anchors[level].to(compute) if anchors else None
        if priors is not None and strides:
            priors = grid_anchors(priors, height, width, *strides[2 * level : 2 * level + 2])
        best = [descending_order(of_image)[:pre_nms_top_n] for of_image in score]
        logits.append([s[i] for s, i in zip(score, best, strict=True)])
        boxes.append(
            [
                d[i] if priors is None else decode(d[i], priors[i], weights, bbox_xform_clip)
                for d, i in zip(delta, best, strict=True)
            ]
        )
        levels.append(torch.full((min(pre_nms_top_n, height * width * cell),), level, device=device))

    proposals = torch.zeros(images, post_nms_top_n, 4, dtype=compute, device=device)
    scores = torch.zeros(images, post_nms_top_n, dtype=compute, device=device)
    counts = torch.zeros(images, dtype=torch.int64, device=device)
    if images == 0:
        return proposals, scores, counts
    level_of = torch.cat(levels)
    # All images at once: torch's sigmoid on a CPU rounds the last few elements of a tensor otherwise than the rest.
    probability = torch.stack([torch.cat(of_image) for of_image in zip(*logits, strict=True)]).sigmoid()
    for image, of_image in enumerate(zip(*boxes, strict=True)):
        box = clip_to_image(torch.cat(of_image), *image_sizes[image].to(compute))
        score = probability[image]
        large = ((box[:, 2:] - box[:, :2]) >= min_size).all(1)
        taking = (large & (score >= score_thresh)).nonzero()[:, 0]
        kept = taking[batched_nms(box[taking], score[taking], level_of[taking], nms_thresh)[:post_nms_top_n]]
        proposals[image, : len(kept)], scores[image, : len(kept)], counts[image] = box[kept], score[kept], len(kept)
    return proposals, scores, counts
