"""Facts of the targets of a mask head alone; what every op promises is in test_ops.py."""

import pytest
import torch
from torchvision.models.detection import roi_heads

from structops import ops
from structops.testing.cases.mask_targets import bitmaps
from structops.testing.workloads.nms import HEIGHT, WIDTH, spread_boxes


@pytest.mark.parametrize("dtype", [torch.uint8, torch.bool, torch.float32, torch.float64])
def test_torchvisions(dtype, g):
    masks, boxes = bitmaps(g, 4, HEIGHT // 4, WIDTH // 4).to(dtype), spread_boxes(30, g) / 4
    matched = torch.randint(4, (30,), generator=g)
    for side in (14, 28):
        theirs = roi_heads.project_masks_on_boxes(masks, boxes.double(), matched, side)
        mine = ops.mask_targets(masks, boxes.double(), matched, side)
        torch.testing.assert_close(mine, theirs, rtol=0, atol=1e-10)


def test_what_roi_align_gives(g):
    masks, boxes, matched = bitmaps(g, 5, 90, 70), spread_boxes(40, g) / 10, torch.randint(5, (40,), generator=g)
    rois = torch.cat([matched[:, None], boxes], 1)
    crops = ops.roi_align(masks[:, None].float(), rois, (9, 13), sampling_ratio=-1, aligned=False)
    torch.testing.assert_close(ops.mask_targets(masks, boxes, matched, (9, 13)), crops[:, 0], rtol=0, atol=1e-6)


def test_the_types_of_masks_make_no_difference(g):
    masks, boxes, matched = bitmaps(g, 5, 90, 70), spread_boxes(40, g) / 10, torch.randint(5, (40,), generator=g)
    wanted = ops.mask_targets(masks, boxes, matched, 7)
    for dtype in (torch.bool, torch.float16, torch.bfloat16, torch.float32):
        assert torch.equal(ops.mask_targets(masks.to(dtype), boxes, matched, 7), wanted)
