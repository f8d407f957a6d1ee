"""Draws docs/images/detection-stages.png: anchors, their matching, and suppression, on a photograph. Run by ``make
docs``."""

from __future__ import annotations

import sys
from pathlib import Path

import matplotlib.pyplot as plt
import numpy as np
import torch
from matplotlib.patches import Rectangle
from skimage import data

from structops import ops
from structops.models.centerface import CenterFace, decode
from structops.ops.anchors import cell_anchors

STRIDE = 16  # image pixels per feature pixel
SIZES, RATIOS = (64, 128), (0.5, 1.0, 2.0)
HIGH, LOW = 0.5, 0.3  # a match from, background below
CANDIDATE = 0.1  # least score of a candidate
IOU = 0.3
VIEW = (120, 8, 330, 218)  # the part of the photograph that is drawn
POSITIVE, BETWEEN, CANDIDATES = "#1b9e77", "#e6ab02", "#d95f02"
METHODS = {
    "hard": ("greedy NMS", "#222222"),
    "linear": ("soft, linear", "#7570b3"),
    "gaussian": ("soft, gaussian", POSITIVE),
}


def photograph(axes, image: np.ndarray, title: str) -> None:
    axes.imshow(image, interpolation="nearest")
    axes.set(xlim=(VIEW[0], VIEW[2]), ylim=(VIEW[3], VIEW[1]), xticks=[], yticks=[])
    axes.set_title(title, fontsize=11)


def outline(axes, box: torch.Tensor, color: str, width: float = 1.0, **style: object) -> None:
    x1, y1, x2, y2 = box.tolist()
    axes.add_patch(Rectangle((x1, y1), x2 - x1, y2 - y1, fill=False, edgecolor=color, linewidth=width, **style))


def all_anchors() -> torch.Tensor:
    """``[H * W * 6, 4]``: those of the whole picture of 512 x 512."""
    cells = cell_anchors(SIZES, RATIOS)
    return ops.generate_anchors([cells], [(512 // STRIDE, 512 // STRIDE)], [(STRIDE, STRIDE)])


def draw_anchors(axes, image: np.ndarray, anchors: torch.Tensor) -> None:
    photograph(axes, image, "generate_anchors: the same six at every point")
    grid = torch.arange(0, 512, STRIDE)
    axes.plot(*(v.flatten() for v in torch.meshgrid(grid, grid, indexing="xy")), ".", color="white", markersize=2.5)
    row, column = 7, 14
    first = (row * (512 // STRIDE) + column) * len(SIZES) * len(RATIOS)
    for anchor in anchors[first : first + len(SIZES) * len(RATIOS)]:
        outline(axes, anchor, CANDIDATES, 1.6)
    axes.plot([column * STRIDE], [row * STRIDE], "o", color=CANDIDATES, markersize=5)


def draw_matches(axes, image: np.ndarray, anchors: torch.Tensor, face: torch.Tensor) -> None:
    matches, _ = ops.match_boxes(face, anchors, HIGH, LOW, True)
    positive, between = anchors[matches >= 0], anchors[matches == -2]
    title = f"match_boxes: of {len(anchors)} anchors {len(positive)} learn the face,\n{len(between)} are left out"
    photograph(axes, image, title)
    for anchor in between:
        outline(axes, anchor, BETWEEN, 0.6, alpha=0.5)
    for anchor in positive:
        outline(axes, anchor, POSITIVE, 1.4)
    outline(axes, face[0], "white", 2.2, linestyle="--")


def draw_candidates(axes, image: np.ndarray, boxes: torch.Tensor, scores: torch.Tensor) -> torch.Tensor:
    """Candidates and what suppression keeps of them, whose indices are returned."""
    kept = ops.nms(boxes, scores, IOU)
    photograph(axes, image, f"nms: {len(boxes)} candidates of CenterFace, {len(kept)} kept")
    for box, score in zip(boxes, scores.tolist(), strict=True):
        outline(axes, box, CANDIDATES, 1.0, alpha=0.25 + 0.6 * score)
    for box in boxes[kept]:
        outline(axes, box, POSITIVE, 2.4)
    return kept


def draw_scores(axes) -> None:
    """What is left of a box's score beside a better box, against their overlap: a pair a class, all in one call."""
    shift = torch.linspace(100, 0, 201)
    zero, side = torch.zeros_like(shift), torch.full_like(shift, 100)
    best = torch.stack([zero, zero, side, side], 1)
    other = torch.stack([shift, zero, shift + 100, side], 1)
    overlap = ops.box_iou(best, other, elementwise=True)
    boxes, pair = torch.cat([best, other]), torch.arange(len(shift)).repeat(2)
    scores = torch.tensor([1.0, 0.9]).repeat_interleave(len(shift))
    for method, (label, color) in METHODS.items():
        indices, left, count = ops.soft_nms(boxes, scores, IOU, idxs=pair, method=method, score_threshold=0.0)
        after = torch.zeros_like(scores).index_put((indices[: int(count)],), left[: int(count)])
        axes.plot(overlap, after[len(shift) :] / 0.9, color=color, label=label, linewidth=1.8)
    after = ops.matrix_nms(boxes, scores, idxs=pair)
    axes.plot(
        overlap, after[len(shift) :] / 0.9, color=CANDIDATES, label="matrix_nms, gaussian", linewidth=1.8, dashes=(3, 3)
    )
    axes.set(xlabel="IoU with a better box", ylabel="share of the score that is left", ylim=(-0.03, 1.05))
    axes.set_title("soft_nms, matrix_nms: scores fall, boxes stay", fontsize=11)
    axes.legend(frameon=False, fontsize=9)
    axes.spines[["top", "right"]].set_visible(False)


def main(path: Path) -> None:
    image = data.astronaut()
    picture = torch.from_numpy(image).permute(2, 0, 1)[None].float()
    with torch.no_grad():
        maps = CenterFace.from_onnx()(picture)
    candidates = decode(maps, (512, 512), CANDIDATE, 1.0)  # at a threshold of 1 nothing is suppressed
    figure, axes = plt.subplots(2, 2, figsize=(9.6, 9.8), layout="constrained")
    anchors = all_anchors()
    draw_anchors(axes[0, 0], image, anchors)
    kept = draw_candidates(axes[1, 0], image, candidates.boxes, candidates.scores)
    draw_matches(axes[0, 1], image, anchors, candidates.boxes[kept[:1]])
    draw_scores(axes[1, 1])
    path.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(path, dpi=110)


if __name__ == "__main__":
    default = Path(__file__).resolve().parents[1] / "images" / "detection-stages.png"
    main(Path(sys.argv[1]) if len(sys.argv) > 1 else default)
