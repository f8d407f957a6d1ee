"""torchvision's region proposal network on structops: ``forward`` from the raw maps of its head, ``filter_proposals``
from boxes that are decoded already, as in training.

Results have torchvision's types and values, unpadded: how many there are of each image is the one thing that is waited
for. Whatever these methods do not take is left to torchvision's own, and with it scripted, traced and compiled models,
half precision, in which torchvision rounds every step, and what subclasses or instances have changed.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor
from torchvision.models.detection._utils import BoxCoder
from torchvision.models.detection.anchor_utils import AnchorGenerator
from torchvision.models.detection.image_list import ImageList
from torchvision.models.detection.rpn import RegionProposalNetwork, concat_box_prediction_layers

from structops import ops
from structops.integrations import _torchvision_anchors
from structops.integrations._torchvision_devices import patched
from structops.integrations._torchvision_methods import Method
from structops.ops.generate_proposals import MAX_LEVELS

# Taken before any patch.
_OWN = {
    owner: {name: vars(owner)[name] for name in names}
    for owner, names in {
        RegionProposalNetwork: ("_get_top_n_idx",),
        BoxCoder: ("decode", "decode_single"),
        AnchorGenerator: ("forward", "grid_anchors", "set_cell_anchors"),
    }.items()
}
_OURS = {(owner, ours.__name__): ours for owner, _, ours in _torchvision_anchors.METHODS}  # with the same results
_HOOKS = ("_forward_hooks", "_forward_pre_hooks")


def _untouched(instance: Any, owner: type) -> bool:
    """Whether an object's methods are those that torchvision, or its patch, has for them."""
    return all(
        getattr(type(instance), name, None) in (method, _OURS.get((owner, name))) and name not in vars(instance)
        for name, method in _OWN[owner].items()
    )


def _sane(network: Any, first: Tensor) -> bool:
    """Whether structops gives what torchvision would for a network's settings."""
    return (
        not torch.jit.is_tracing()
        and not torch.compiler.is_compiling()
        and patched(first.device)
        and first.dtype in (torch.float32, torch.float64)
        and _untouched(network, RegionProposalNetwork)
        and network.nms_thresh >= 0
        and network.pre_nms_top_n() >= 0
        and network.post_nms_top_n() >= 0
    )


def _settings(network: Any) -> dict[str, Any]:
    return {
        "pre_nms_top_n": network.pre_nms_top_n(),
        "post_nms_top_n": network.post_nms_top_n(),
        "nms_thresh": network.nms_thresh,
        "min_size": network.min_size,
        "score_thresh": network.score_thresh,
    }


def _unpadded(proposals: Tensor, scores: Tensor, counts: Tensor) -> tuple[list[Tensor], list[Tensor]]:
    """Boxes and scores of each image, in memory of their own."""
    each = counts.tolist()
    return (
        [boxes[:count].clone() for boxes, count in zip(proposals, each, strict=True)],
        [of_image[:count].clone() for of_image, count in zip(scores, each, strict=True)],
    )


def _filterable(network, proposals, objectness, image_shapes, num_anchors_per_level) -> bool:
    return (
        isinstance(proposals, Tensor)
        and isinstance(objectness, Tensor)
        and _sane(network, proposals)
        and objectness.dtype == proposals.dtype
        and objectness.device == proposals.device
        and proposals.dim() == 3
        and proposals.shape[2] == 4
        and objectness.numel() == proposals.shape[0] * proposals.shape[1] > 0
        and sum(num_anchors_per_level) == proposals.shape[1]
        and 0 < len(num_anchors_per_level) <= MAX_LEVELS
        and len(image_shapes) == proposals.shape[0]
        and not (torch.is_grad_enabled() and proposals.requires_grad)
    )


def _filtered(network, proposals, objectness, image_shapes, num_anchors_per_level) -> tuple[list[Tensor], list[Tensor]]:
    # As maps of one column, and an anchor a row.
    logits = objectness.detach().reshape(proposals.shape[:2])[:, None, :, None]
    boxes = proposals.detach().transpose(1, 2)[..., None]
    found = ops.generate_proposals(
        logits.split(num_anchors_per_level, 2),
        boxes.split(num_anchors_per_level, 2),
        torch.tensor([list(shape) for shape in image_shapes], device=proposals.device),
        None,
        **_settings(network),
    )
    return _unpadded(*found)


def filter_proposals(
    self,
    proposals: Tensor,
    objectness: Tensor,
    image_shapes: list[tuple[int, int]],
    num_anchors_per_level: list[int],
) -> tuple[list[Tensor], list[Tensor]]:
    """Boxes and scores of each image from ``proposals [B, N, 4]`` and their ``objectness``, level after level."""
    if torch.jit.is_scripting():
        return self._torchvision_filter_proposals(proposals, objectness, image_shapes, num_anchors_per_level)
    else:
        if not _filterable(self, proposals, objectness, image_shapes, num_anchors_per_level):
            return self._torchvision_filter_proposals(proposals, objectness, image_shapes, num_anchors_per_level)
        return _filtered(self, proposals, objectness, image_shapes, num_anchors_per_level)


def _fusible(network: Any, images: ImageList, features: Sequence[Tensor]) -> bool:
    """Whether the maps of the head alone are needed: by what can be known before it runs."""
    coder, anchors = network.box_coder, network.anchor_generator
    return (
        not network.training
        and type(network) is RegionProposalNetwork
        and "filter_proposals" not in vars(network)
        and 0 < len(features) <= MAX_LEVELS
        and all(isinstance(f, Tensor) and f.dim() == 4 and f.numel() > 0 for f in features)
        and _sane(network, features[0])
        and not torch.is_autocast_enabled(features[0].device.type)
        and type(coder) is BoxCoder
        and _untouched(coder, BoxCoder)
        and len(coder.weights) == 4
        # torchvision multiplies by the reciprocal of a weight on a GPU: the same for powers of two.
        and all(w > 0 and (math.frexp(w)[0] == 0.5 or features[0].device.type == "cpu") for w in coder.weights)
        and type(anchors) is AnchorGenerator
        and _untouched(anchors, AnchorGenerator)
        and not any(getattr(anchors, hooks) for hooks in _HOOKS)
        and len(anchors.cell_anchors) == len(features)
        and len(images.image_sizes) > 0
    )


def _are_maps(network: Any, images: ImageList, features: Sequence[Tensor], objectness: Any, deltas: Any) -> bool:
    """Whether the head's outputs are what torchvision's own head gives for these features."""
    count = len(features)
    if not all(isinstance(maps, list | tuple) and len(maps) == count for maps in (objectness, deltas)):
        return False
    batch, first = len(images.image_sizes), features[0]
    return all(
        isinstance(o, Tensor)
        and isinstance(d, Tensor)
        and o.dtype == d.dtype == first.dtype
        and o.device == d.device == first.device
        and o.shape == (batch, len(cell), *f.shape[2:])
        and d.shape == (batch, 4 * len(cell), *f.shape[2:])
        for o, d, f, cell in zip(objectness, deltas, features, network.anchor_generator.cell_anchors, strict=True)
    )


def _from_maps(network: Any, images: ImageList, features: Sequence[Tensor], objectness: Any, deltas: Any) -> Any:
    """The proposals, without an anchor or a box that is not needed."""
    first, anchors = features[0], network.anchor_generator
    anchors.set_cell_anchors(first.dtype, first.device)
    height, width = images.tensors.shape[-2:]
    found = ops.generate_proposals(
        objectness,
        deltas,
        torch.tensor([list(size) for size in images.image_sizes], device=first.device),
        anchors.cell_anchors,
        strides=[(height // f.shape[2], width // f.shape[3]) for f in features],
        weights=network.box_coder.weights,
        bbox_xform_clip=network.box_coder.bbox_xform_clip,
        **_settings(network),
    )
    return _unpadded(*found)


def _decoded(network: Any, images: ImageList, features: list[Tensor], objectness: Any, deltas: Any) -> Any:
    """torchvision's way from the maps of a head that has run already."""
    anchors = network.anchor_generator(images, features)
    counts = [o[0].shape[0] * o[0].shape[1] * o[0].shape[2] for o in objectness]
    logits, codes = concat_box_prediction_layers(list(objectness), list(deltas))
    proposals = network.box_coder.decode(codes.detach(), anchors).view(len(anchors), -1, 4)
    return network.filter_proposals(proposals, logits, images.image_sizes, counts)


def forward(
    self,
    images: ImageList,
    features: dict[str, Tensor],
    targets: list[dict[str, Tensor]] | None = None,
) -> tuple[list[Tensor], dict[str, Tensor]]:
    """Proposals of each image, and in training the losses."""
    if torch.jit.is_scripting():
        return self._torchvision_forward(images, features, targets)
    else:
        levels = list(features.values())
        if not _fusible(self, images, levels):
            return self._torchvision_forward(images, features, targets)
        objectness, deltas = self.head(levels)
        way = _from_maps if _are_maps(self, images, levels, objectness, deltas) else _decoded
        return way(self, images, levels, objectness, deltas)[0], {}


METHODS: tuple[Method, ...] = tuple(
    (RegionProposalNetwork, vars(RegionProposalNetwork)[ours.__name__], ours) for ours in (forward, filter_proposals)
)
