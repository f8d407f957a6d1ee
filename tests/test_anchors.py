"""Facts of anchors, default boxes and grid points alone; what every op promises is in test_ops.py."""

import pytest
import torch

from structops import ops
from structops.ops.anchors import cell_anchors, wh_pairs

DTYPES = [torch.float16, torch.bfloat16, torch.float32, torch.float64]


@pytest.fixture
def anchor_utils():
    return pytest.importorskip("torchvision.models.detection.anchor_utils", reason="torchvision is not installed")


def images_and_maps(image, grids, dtype):
    from torchvision.models.detection.image_list import ImageList

    return ImageList(torch.empty(1, 3, *image), [image]), [torch.empty(1, 1, *grid, dtype=dtype) for grid in grids]


@pytest.mark.parametrize("dtype", DTYPES)
def test_anchors_of_a_detector_are_torchvisions_to_the_bit(anchor_utils, dtype):
    sizes = tuple((s, int(s * 2 ** (1 / 3)), int(s * 2 ** (2 / 3))) for s in (32, 64, 128, 256, 512))
    ratios, image = ((0.5, 1.0, 2.0),) * 5, (800, 1333)
    grids = [(100, 167), (50, 84), (25, 42), (13, 21), (7, 11)]
    (wanted,) = anchor_utils.AnchorGenerator(sizes, ratios)(*images_and_maps(image, grids, dtype))
    strides = [(image[0] // h, image[1] // w) for h, w in grids]
    cells = [cell_anchors(s, r, dtype) for s, r in zip(sizes, ratios, strict=True)]
    found = ops.generate_anchors(cells, grids, strides)
    assert found.dtype == wanted.dtype
    assert torch.equal(found, wanted)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("steps", [None, [8, 16, 32, 64, 100, 300]])
@pytest.mark.parametrize("clip", [True, False])
def test_default_boxes_of_a_detector_are_torchvisions_to_the_bit(anchor_utils, dtype, steps, clip):
    scales = [0.07, 0.15, 0.33, 0.51, 0.69, 0.87, 1.05]
    ratios = [[2], [2, 3], [2, 3], [2, 3], [2], [2]]
    grids, image = [(38, 38), (19, 20), (10, 10), (5, 5), (3, 3), (1, 1)], (300, 301)
    generator = anchor_utils.DefaultBoxGenerator(ratios, scales=scales, steps=steps, clip=clip)
    (wanted,) = generator(*images_and_maps(image, grids, dtype))
    pairs = [wh_pairs(a, b, r, dtype) for a, b, r in zip(scales, scales[1:], ratios, strict=False)]
    found = ops.default_boxes(pairs, grids, image, steps=steps, clip=clip)
    assert found.dtype == wanted.dtype
    assert torch.equal(found, wanted)


def test_order(place):
    """Row, column, cell; a level after the other."""
    cells = torch.tensor([[-1.0, -2, 1, 2], [-3, -3, 3, 3]], device=place)
    found = ops.generate_anchors([cells, cells[:1]], [(2, 3), (1, 1)], [(10, 100), 1])
    assert found.shape == (13, 4)
    assert found[0].tolist() == [-1, -2, 1, 2]
    assert found[2 * (1 * 3 + 2) + 1].tolist() == [197, 7, 203, 13]
    assert found[12].tolist() == [-1, -2, 1, 2]


def test_a_default_box(place):
    pairs = torch.tensor([[0.5, 0.25], [2.0, 0.5]], device=place)
    found = ops.default_boxes([pairs], [(2, 2)], (80, 160))
    assert found[2].tolist() == [80, 10, 160, 30]  # about (120, 20), of 80 x 20
    assert found[3].tolist() == [40, 0, 200, 40]  # its width clipped to the image's
    assert ops.default_boxes([pairs], [(2, 2)], (80, 160), clip=False)[3].tolist() == [-40, 0, 280, 40]


def test_points_are_ultralytics_anchor_points_in_pixels(place):
    """``make_anchors(features, strides, 0.5)`` of its heads: points in map pixels, and strides."""
    like, strides = torch.empty(0, device=place), (8, 16)
    grids = [(3, 4), (2, 1)]
    points, of_each = [], []
    for (height, width), stride in zip(grids, strides, strict=True):
        sx, sy = (torch.arange(end=n, device=place, dtype=torch.float32) + 0.5 for n in (width, height))
        y, x = torch.meshgrid(sy, sx, indexing="ij")
        points.append(torch.stack((x, y), -1).view(-1, 2))
        of_each.append(torch.full((height * width, 1), float(stride), device=place))
    wanted, of_each = torch.cat(points), torch.cat(of_each)
    found = ops.yolo_grid(grids, strides, like, with_stride=True)
    assert torch.equal(found[:, :2] / of_each, wanted)
    assert torch.equal(found[:, 2:], of_each.expand(-1, 2))


def test_sizes_of_a_tensor_are_sizes(place):
    map_ = torch.empty(1, 1, 3, 5, device=place)
    assert ops.yolo_grid([map_.shape[-2:]], [8], map_).shape == (15, 2)


def test_dynamic_sizes_compile_to_one_graph():
    """Maps of any size, strides from the image's: what a detector's head does, without a break or a second graph."""
    cells = [cell_anchors((32,), (0.5, 1.0, 2.0))] * 2
    graphs = []

    def count(graph, _):
        graphs.append(graph)
        return graph.forward

    @torch.compile(fullgraph=True, dynamic=True, backend=count)
    def head(image, *maps):
        grids = [m.shape[-2:] for m in maps]
        return ops.generate_anchors(cells, grids, [(image.shape[-2] // h, image.shape[-1] // w) for h, w in grids])

    for h, w in ((80, 112), (176, 208), (240, 144)):  # no side equals a size of the cells: it would count as the same
        maps = [torch.empty(1, 1, h // s, w // s) for s in (8, 16)]
        wanted = ops.generate_anchors(cells, [m.shape[-2:] for m in maps], [8, 16])
        assert torch.equal(head(torch.empty(1, 3, h, w), *maps), wanted)
    assert len(graphs) == 1
