"""Facts of the targets of a mask head alone; what every op promises is in test_ops.py."""

import itertools

import numpy as np
import pytest
import torch
from pycocotools import mask as coco
from torchvision.models.detection import roi_heads

import structops
from structops import ops
from structops.testing.cases.mask_targets import bitmaps, outlines
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


def flat(points, rings, objects):
    """The same as COCO has them: for each object a list of flat polygons."""
    polygons = [points[a:b].flatten().tolist() for a, b in itertools.pairwise(rings)]
    return [polygons[a:b] for a, b in itertools.pairwise(objects)]


def test_within_a_pixel_of_coco(g):
    shapes = outlines(g, [1, 2, 3, 1, 1], 25, 60, 80)
    boxes, matched = spread_boxes(60, g) / 8, torch.randint(5, (60,), generator=g)
    mine = ops.polygon_mask_targets(*shapes, boxes, matched, 28)
    assert 0.05 < mine.mean() < 0.95
    assert set(mine.unique().tolist()) == {0.0, 1.0}
    differ = 0
    for target, box, index in zip(mine, boxes.double(), matched, strict=True):
        scale = 28 / (box[2:] - box[:2])
        polygons = [((torch.tensor(p).view(-1, 2) - box[:2]) * scale).flatten().tolist() for p in flat(*shapes)[index]]
        theirs = torch.from_numpy(coco.decode(coco.merge(coco.frPyObjects(polygons, 28, 28)))).double()
        # Only where a neighbour is another: at the boundary.
        near = torch.nn.functional.max_pool2d(target[None].double(), 3, 1, 1)[0]
        far = -torch.nn.functional.max_pool2d(-target[None].double(), 3, 1, 1)[0]
        assert ((theirs <= near) & (theirs >= far)).all()
        differ += int((theirs != target).sum())
    assert differ < 0.03 * mine.numel()


def test_polygons_as_coco_has_them(g):
    shapes = outlines(g, [1, 2, 0, 1], 7, 60, 80)
    shapes = (shapes[0].float(), *shapes[1:])
    boxes, matched = spread_boxes(20, g) / 8, torch.randint(4, (20,), generator=g)
    for made, given in zip(ops.polygon_tensors(flat(*shapes)), shapes, strict=True):
        assert torch.equal(made, given)
    wanted = ops.polygon_mask_targets(*shapes, boxes, matched, (9, 14))
    assert torch.equal(ops.mask_targets(flat(*shapes), boxes, matched, (9, 14)), wanted)
    with torch.device("meta"):  # as torch.set_default_device does: not where what is made on the host is made
        made = ops.mask_targets(flat(*shapes), boxes, matched, (9, 14))
        assert {t.device.type for t in ops.polygon_tensors([[], *flat(*shapes)])} == {"cpu"}
    assert torch.equal(made, wanted)
    with pytest.raises(RuntimeError, match="x and y in turns"):
        ops.mask_targets([[[1.0, 2.0, 3.0]]], boxes[:1], matched[:1] * 0, 7)


@pytest.mark.parametrize(
    ("masks", "found"),
    [
        (None, "NoneType"),
        (np.ones((1, 9, 10), dtype=np.uint8), "ndarray"),  # whose rows would pass for polygons
        ([np.ones((9, 10))], "ndarray"),
        ([{"size": [9, 9], "counts": "0"}], "dict"),
    ],
)
def test_neither_bitmaps_nor_polygons(masks, found):
    with pytest.raises(RuntimeError, match=rf"mask_targets: gt_masks must be a tensor .*, got {found}"):
        ops.mask_targets(masks, torch.rand(1, 4), torch.zeros(1, dtype=torch.int64), 7)


@pytest.mark.parametrize("backend", ["native", "triton", "reference"])
@pytest.mark.parametrize("coordinate", range(4))
@pytest.mark.parametrize("value", [float("nan"), float("inf"), float("-inf")])
def test_a_box_that_is_not_finite(backend, coordinate, value):
    boxes = torch.tensor([[0.0, 0, 9, 9]])
    boxes[0, coordinate] = value
    with structops.backend(backend):
        for shapes in (torch.ones(1, 9, 9), [[[0, 0, 9, 0, 9, 9]]]):
            assert ops.mask_targets(shapes, boxes, torch.tensor([0]), 3).isnan().all()


def test_offsets_out_of_range(g):
    points, rings, objects = outlines(g, [1, 1], 5, 60, 80)
    boxes, matched = torch.tensor([[0.0, 0, 60, 60]]), torch.zeros(1, dtype=torch.int64)
    for bad in (rings + 1, rings - 1, rings.flip(0)):
        with pytest.raises(RuntimeError, match="rings must rise from 0 to no more than 10"):
            ops.polygon_mask_targets(points, bad, objects, boxes, matched, 7)
    with pytest.raises(RuntimeError, match="objects must rise from 0 to no more than 2"):
        ops.polygon_mask_targets(points, rings, objects + 1, boxes, matched, 7)
