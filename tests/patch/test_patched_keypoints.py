"""structops.patch: Keypoint R-CNN's decoding, with torchvision's results, types and strides."""

from __future__ import annotations

import pytest
import torch
from torchvision.models.detection import roi_heads

import structops
from structops.testing.workloads.heatmaps_to_keypoints import people


@pytest.fixture
def given():
    g = torch.Generator().manual_seed(0)
    return torch.randn(7, 17, 56, 56, generator=g), people(7, g)


def same(mine, theirs) -> None:
    assert mine.dtype == theirs.dtype
    assert mine.stride() == theirs.stride()
    assert mine.requires_grad == theirs.requires_grad
    assert torch.equal(mine, theirs)


def test_inference(given, ran):
    maps, rois = given
    boxes = [rois[:4], rois[4:4], rois[4:]]
    expected = roi_heads.keypointrcnn_inference(maps, boxes)
    with structops.patch("torchvision"):
        found = roi_heads.keypointrcnn_inference(maps, boxes)
    assert ran == ["heatmaps_to_keypoints"] * 3
    for mine, theirs in zip(found, expected, strict=True):
        assert type(mine) is type(theirs)
        for one, other in zip(mine, theirs, strict=True):
            same(one, other)


@pytest.mark.parametrize("dtype", [torch.float64, torch.bfloat16])
def test_other_types_are_torchvisions(given, ran, dtype):
    maps, rois = (t[:2].to(dtype) for t in given)
    expected = roi_heads.heatmaps_to_keypoints(maps, rois)
    with structops.patch("torchvision"):
        found = roi_heads.heatmaps_to_keypoints(maps, rois)
    assert ran == []
    for mine, theirs in zip(found, expected, strict=True):
        same(mine, theirs)


def test_no_keypoints_are_refused_by_torchvision(given, ran):
    maps, rois = given
    with structops.patch("torchvision"), pytest.raises(RuntimeError, match="cannot reshape"):
        roi_heads.heatmaps_to_keypoints(maps[:2, :0], rois[:2])
    assert ran == []


def test_gradients_are_torchvisions(given, ran):
    maps, rois = given[0][:2].requires_grad_(), given[1][:2]
    with structops.patch("torchvision"):
        found = roi_heads.heatmaps_to_keypoints(maps, rois)
    assert ran == []
    assert found[1].requires_grad


def test_scripted(given, ran):
    maps, rois = (t[:2] for t in given)
    expected = roi_heads.heatmaps_to_keypoints(maps, rois)
    with structops.patch("torchvision"):
        scripted = torch.jit.script(roi_heads.heatmaps_to_keypoints)
        found = scripted(maps, rois)
    assert ran == []
    for mine, theirs in zip(found, expected, strict=True):
        torch.testing.assert_close(mine, theirs)


def test_compiled(given, ran):
    maps, rois = given
    expected = roi_heads.heatmaps_to_keypoints(maps, rois)
    with structops.patch("torchvision"):
        found = torch.compile(roi_heads.heatmaps_to_keypoints, fullgraph=True, backend="aot_eager")(maps, rois)
    for mine, theirs in zip(found, expected, strict=True):
        same(mine, theirs)
