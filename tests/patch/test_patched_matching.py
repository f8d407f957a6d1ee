"""structops.patch: torchvision's detectors match the same ground truths in training, without the matrix of IoUs."""

from __future__ import annotations

import pytest
import torch
from torchvision.models.detection import RetinaNet, retinanet_resnet50_fpn
from torchvision.models.detection._utils import Matcher
from torchvision.models.detection.roi_heads import RoIHeads
from torchvision.models.detection.rpn import RegionProposalNetwork

import structops
from structops.testing.cases.match_boxes import around

from .conftest import code_of

RPN_OPTIONS = (None, None, 0.7, 0.3, 256, 0.5, {"training": 10, "testing": 10}, {"training": 10, "testing": 10}, 0.7)
ROI_OPTIONS = (None, None, None, 0.6, 0.4, 512, 0.25, None, 0.05, 0.5, 100)  # with anchors to be left out


class Head(torch.nn.Module):
    def compute_loss(self, targets, head_outputs, anchors, matched_idxs):
        return {"matches": matched_idxs}


def retinanet() -> RetinaNet:
    model = RetinaNet.__new__(RetinaNet)  # its backbone has no part in this
    torch.nn.Module.__init__(model)
    model.proposal_matcher, model.head = Matcher(0.5, 0.4, allow_low_quality_matches=True), Head()
    return model


def images(dtype: torch.dtype = torch.float32):
    """Anchors, ground truths and their classes of three images, the second without any."""
    g = torch.Generator().manual_seed(0)
    gt = []
    for n in (5, 0, 1):
        corner = 100 * torch.rand(n, 2, generator=g, dtype=torch.float64)
        gt.append(torch.cat([corner, corner + 10 + 50 * torch.rand(n, 2, generator=g, dtype=torch.float64)], 1))
    anchors = [around(g, gt[0], 300) for _ in gt]
    classes = [torch.randint(1, 5, (len(t),), generator=g) for t in gt]
    return [a.to(dtype) for a in anchors], [t.to(dtype) for t in gt], classes


def targets_of(anchors, gt, classes) -> tuple:
    """What each method gives for these: every tensor, in order."""
    targets = [{"boxes": t} for t in gt]
    labels, boxes = RegionProposalNetwork(*RPN_OPTIONS).assign_targets_to_anchors(anchors, targets)
    indices, of_class = RoIHeads(*ROI_OPTIONS).assign_targets_to_proposals(anchors, gt, classes)
    return *labels, *boxes, *indices, *of_class, *retinanet().compute_loss(targets, {}, anchors)["matches"]


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_same_targets(ran, dtype):
    expected = targets_of(*images(dtype))
    assert ran == []
    with structops.patch():
        found = targets_of(*images(dtype))
    assert ran == ["match_boxes"] * 9
    for theirs, ours in zip(expected, found, strict=True):
        assert ours.dtype == theirs.dtype
        assert torch.equal(ours, theirs)
    memory = [t.data_ptr() for t in found]
    assert len(set(memory)) == len(memory)


@pytest.mark.filterwarnings("ignore")
def test_what_is_left_to_torchvision(ran):
    class OtherMatcher(Matcher):
        pass

    anchors, gt, classes = images()
    halves = [a.half() for a in anchors], [t.half() for t in gt], classes
    expected = targets_of(*halves)
    with structops.patch():
        assert all(torch.equal(a, b) for a, b in zip(targets_of(*halves), expected, strict=True))
        rpn = RegionProposalNetwork(*RPN_OPTIONS)
        rpn.proposal_matcher = OtherMatcher(0.7, 0.3)
        rpn.assign_targets_to_anchors(anchors, [{"boxes": t} for t in gt])
        rpn = RegionProposalNetwork(*RPN_OPTIONS)
        rpn.box_similarity = lambda a, b: torch.zeros(len(a), len(b))
        rpn.assign_targets_to_anchors(anchors, [{"boxes": t} for t in gt])
        with pytest.raises(ValueError, match="No proposal boxes available"):
            RoIHeads(*ROI_OPTIONS).assign_targets_to_proposals([anchors[0][:0]], gt, classes)
    assert "match_boxes" not in ran


@pytest.mark.filterwarnings("ignore:`torch.jit")
def test_scripted_is_torchvisions(ran):
    torch.manual_seed(0)
    model = retinanet_resnet50_fpn(weights=None, weights_backbone=None, num_classes=5, min_size=64, max_size=96)
    pictures = [torch.rand(3, 64, 96)]
    targets = [{"boxes": torch.tensor([[10.0, 12, 60, 50]]), "labels": torch.tensor([1])}]
    expected = model(pictures, targets)
    with structops.patch():
        scripted = torch.jit.script(model)
        torch.testing.assert_close(model(pictures, targets), expected)  # the focal loss is structops' too
    assert "match_boxes" in ran
    assert "structops" not in code_of(scripted.inlined_graph)
    found, _ = scripted(pictures, targets)
    assert all(torch.equal(loss, expected[name]) for name, loss in found.items())
