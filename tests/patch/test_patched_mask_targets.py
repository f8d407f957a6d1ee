"""structops.patch: the targets of Mask R-CNN, with torchvision's results and types."""

from __future__ import annotations

import pytest
import torch
from torchvision.models.detection import roi_heads

import structops
from structops.testing.cases.mask_targets import bitmaps


@pytest.fixture
def given():
    g = torch.Generator().manual_seed(0)
    corner = 50 * torch.rand(20, 2, generator=g)
    boxes = torch.cat([corner, corner + 2 + 40 * torch.rand(20, 2, generator=g)], 1)
    return bitmaps(g, 3, 80, 100), boxes, torch.randint(3, (20,), generator=g), 28


@pytest.mark.parametrize("dtype", [torch.uint8, torch.bool, torch.float32, torch.float64])
@pytest.mark.parametrize("compute", [torch.float32, torch.float64])
def test_same_results_and_types(given, ran, dtype, compute):
    masks, boxes, matched, side = given
    given = masks.to(dtype), boxes.to(compute), matched, side
    expected = roi_heads.project_masks_on_boxes(*given)
    with structops.patch("torchvision"):
        found = roi_heads.project_masks_on_boxes(*given)
    assert ran == ["mask_targets"]
    assert found.dtype == expected.dtype
    assert found.stride() == expected.stride()
    # torchvision's float32 coordinates are off by 1e-5 pixels, and a bitmap's edges are steep.
    torch.testing.assert_close(found, expected, rtol=0, atol=1e-3 if compute == torch.float32 else 1e-11)


def test_what_is_not_taken_is_torchvisions(given, ran):
    masks, boxes, matched, side = given
    expected = roi_heads.project_masks_on_boxes(masks.int(), boxes, matched, side)
    with structops.patch("torchvision"):
        found = roi_heads.project_masks_on_boxes(masks.int(), boxes, matched, side)
    assert ran == ["roi_align"]
    torch.testing.assert_close(found, expected, rtol=0, atol=1e-3)


def test_what_is_refused_is_refused_by_torchvision(given):
    masks, boxes, matched, side = given
    with pytest.raises(RuntimeError, match="roi_align") as theirs:
        roi_heads.project_masks_on_boxes(masks.float(), boxes, matched, (side, side))
    with structops.patch("torchvision"), pytest.raises(RuntimeError) as mine:
        roi_heads.project_masks_on_boxes(masks.float(), boxes, matched, (side, side))
    assert str(mine.value) == str(theirs.value)


def test_scripted(given):
    expected = roi_heads.project_masks_on_boxes(*given)
    with structops.patch("torchvision"):
        found = torch.jit.script(roi_heads.project_masks_on_boxes)(*given)
    torch.testing.assert_close(found, expected, rtol=0, atol=1e-3)
