"""Facts of the region proposal stage alone; what every op promises is in test_ops.py."""

from __future__ import annotations

import functools

import pytest
import torch
from torch.profiler import ProfilerActivity, profile

import structops
from structops import ops
from structops.testing.cases.generate_proposals import head, materialised
from structops.testing.recording import WAITS, Recorder, captured
from structops.testing.workloads.generate_proposals import distinct, same_but_for_ties

STRIDES = (4, 8, 16, 32, 64)
TOP_N = {"training": 2000, "testing": 1000}


class Seeded(torch.nn.Module):
    """A pyramid's features [B, 16, H, W] of images [B, 3, 384, 512], by a few convolutions of seeded weights."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = torch.nn.Conv2d(3, 16, 7, stride=4, padding=3)
        self.down = torch.nn.ModuleList(torch.nn.Conv2d(16, 16, 3, stride=2, padding=1) for _ in STRIDES[1:])

    def forward(self, images: torch.Tensor) -> dict[str, torch.Tensor]:
        levels = [self.stem(images).relu()]
        for layer in self.down:
            levels.append(layer(levels[-1]).relu())
        return {str(i): level for i, level in enumerate(levels)}


def photographs(count: int) -> tuple[torch.Tensor, list[tuple[int, int]]]:
    """[count, 3, 384, 512], each photograph in the upper left corner, and how large it is there."""
    data = pytest.importorskip("skimage.data")
    batch, sizes = torch.zeros(count, 3, 384, 512), []
    for image, name in enumerate(("astronaut", "coffee", "chelsea", "rocket")[:count]):
        picture = torch.from_numpy(getattr(data, name)()).permute(2, 0, 1)[:, :384, :512].float() / 127 - 1
        height, width = picture.shape[1:]
        batch[image, :, :height, :width] = picture
        sizes.append((height, width))
    return batch, sizes


@functools.cache
def torchvision_rpn(images: int, layout: torch.memory_format = torch.contiguous_format):
    """torchvision's own RPN on photographs: (network, its arguments, head's maps, proposals, scores)."""
    rpn = pytest.importorskip("torchvision.models.detection.rpn")
    from torchvision.models.detection.image_list import ImageList

    torch.manual_seed(0)
    features = Seeded()
    anchors = rpn.AnchorGenerator(tuple((8 * stride,) for stride in STRIDES), ((0.5, 1.0, 2.0),) * len(STRIDES))
    network = rpn.RegionProposalNetwork(anchors, rpn.RPNHead(16, 3), 0.7, 0.3, 256, 0.5, TOP_N, TOP_N, 0.7).eval()
    for parameter in network.head.parameters():  # as given, all scores are a half and all boxes anchors
        torch.nn.init.normal_(parameter, std=0.15)
    batch, sizes = photographs(images)
    with torch.no_grad():
        maps = {name: level.contiguous(memory_format=layout) for name, level in features(batch).items()}
        logits, deltas = network.head(list(maps.values()))
        # torchvision leaves ties open.
        logits = [distinct(level.contiguous()).contiguous(memory_format=layout) for level in logits]
    network.head.forward = lambda features: (logits, deltas)  # type: ignore[method-assign]
    arguments = ImageList(batch, sizes), maps
    scores = []
    original = network.filter_proposals

    def filter_proposals(*args):
        found = original(*args)
        scores.append(found[1])
        return found

    network.filter_proposals = filter_proposals  # type: ignore[method-assign]
    with torch.no_grad():
        boxes, _ = network(*arguments)
    return network, arguments, (logits, deltas), boxes, scores[0]


def fused(network, arguments, maps, **options):
    """The same by structops."""
    batch, features = arguments
    strides = [(batch.tensors.shape[2] // f.shape[2], batch.tensors.shape[3] // f.shape[3]) for f in features.values()]
    cells = network.anchor_generator.cell_anchors
    return ops.generate_proposals(*maps, batch.image_sizes, cells, strides=strides, **options)


@pytest.mark.parametrize("layout", [torch.contiguous_format, torch.channels_last], ids=["contiguous", "channels_last"])
@pytest.mark.parametrize("images", [1, 4])
def test_bit_for_bit_with_torchvision_on_photographs(images, layout):
    network, arguments, maps, their_boxes, their_scores = torchvision_rpn(images, layout)
    boxes, scores, counts = fused(network, arguments, maps)
    for image in range(images):
        count = int(counts[image])
        assert 500 < count == len(their_boxes[image])
        assert torch.equal(scores[image, :count], their_scores[image])
        assert same_but_for_ties(boxes[image, :count], their_boxes[image], scores[image, :count])
        assert not boxes[image, count:].any()
        assert not scores[image, count:].any()


def test_given_anchors_and_given_boxes_are_the_same():
    network, arguments, maps, _, _ = torchvision_rpn(1)
    wanted = fused(network, arguments, maps)
    batch, features = arguments
    anchors = network.anchor_generator(batch, list(features.values()))[0]
    counts = [m[0].numel() for m in maps[0]]
    by_level = list(anchors.split(counts))
    found = ops.generate_proposals(*maps, batch.image_sizes, by_level)
    assert all(map(torch.equal, found, wanted))

    from torchvision.models.detection.rpn import concat_box_prediction_layers

    logits, deltas = concat_box_prediction_layers(*maps)
    boxes = network.box_coder.decode(deltas, [anchors]).view(1, -1, 4).split(counts, 1)
    # As views, one after the other: [1, 1, n, 1] and [1, 4, n, 1].
    flat = [score[:, None, :, None] for score in logits.view(1, -1).split(counts, 1)]
    found = ops.generate_proposals(flat, [b.transpose(1, 2)[..., None] for b in boxes], batch.image_sizes, None)
    assert all(map(torch.equal, found, wanted))


def test_ties_go_to_the_finer_level_then_the_lower_index(place):
    # Two levels of equal logits: boxes of two anchors a cell, apart from each other.
    logits = [torch.zeros(1, 2, 2, 2), torch.zeros(1, 2, 1, 1)]
    deltas = [torch.zeros(1, 8, 2, 2), torch.zeros(1, 8, 1, 1)]
    cell = torch.tensor([[0.0, 0.0, 3.0, 3.0], [4.0, 4.0, 7.0, 7.0]])
    logits, deltas = ([t.to(place) for t in maps] for maps in (logits, deltas))
    anchors, sizes = [cell.to(place), cell.to(place) + 20], torch.tensor([[64, 64]], device=place)
    options = {"strides": [(8, 8), (64, 64)], "pre_nms_top_n": 5, "post_nms_top_n": 8}
    boxes, scores, counts = ops.generate_proposals(logits, deltas, sizes, anchors, **options)
    # In the order (y, x, anchor), cut off after five.
    assert boxes[0, :, :2].tolist() == [[0, 0], [4, 4], [8, 0], [12, 4], [0, 8], [20, 20], [24, 24], [0, 0]]
    assert counts.tolist() == [7]
    assert (scores[0, :7] == 0.5).all()


def test_halves_give_float32(place, g):
    arguments = head(g, 1, [(4, 5)], post_nms_top_n=4)
    arguments["image_sizes"] = arguments["image_sizes"].to(place)
    maps = {name: [m.to(place, torch.bfloat16) for m in arguments[name]] for name in ("objectness", "deltas")}
    wide = {name: [m.float() for m in those] for name, those in maps.items()}
    anchors = {"anchors": [a.float().to(place) for a in arguments["anchors"]]}
    found = ops.generate_proposals(**{**arguments, **maps, **anchors})
    assert found[0].dtype == found[1].dtype == torch.float32
    assert all(map(torch.equal, found, ops.generate_proposals(**{**arguments, **wide, **anchors})))


#: of memory and of views: nothing that a GPU would run
FREE = {"empty", "new_empty", "empty_like", "select", "slice", "view", "reshape", "as_strided", "narrow", "detach"}


def test_few_calls_of_torch_and_no_wait(monkeypatch):
    network, arguments, maps, _, _ = torchvision_rpn(4)
    with Recorder() as recorder:
        fused(network, arguments, maps)
    assert recorder.names.count("generate_proposals") == 1
    assert not recorder.waits
    assert len(recorder.names) <= 12

    # Below that, where the kernels ask torch for a sigmoid and an exponential.
    sizes = torch.tensor(arguments[0].image_sizes)
    strides, cells = [n for stride in STRIDES for n in (stride, stride)], network.anchor_generator.cell_anchors
    given = (*maps, sizes, cells, strides, 1000, 1000, 0.7, 1e-3, 0.0, [1.0] * 4, 4.0)
    with profile(activities=[ProfilerActivity.CPU]) as below:
        torch.ops.structops.generate_proposals(*given)
    names = [e.name.removeprefix("aten::") for e in below.events() if e.name.startswith("aten::")]
    assert {"sigmoid_", "exp_"} <= set(names)
    assert not WAITS & set(names)
    assert len([name for name in names if name not in FREE]) <= 12, names

    if structops._backend.unusable("triton", "cpu"):
        return
    # On tensors without values, and without the launches, which under an interpreter are calls of torch themselves.
    for module in ("generate_proposals", "_top_k", "nms", "nms_padded"):
        monkeypatch.setattr(f"structops.triton_kernels.{module}.run", lambda *_: None)
    meta = [[t.to("meta") for t in maps] for maps in (*maps, cells)]
    with Recorder() as recorder:
        structops._backend.OPS["generate_proposals"].implementation("triton")(
            meta[0], meta[1], sizes.to("meta"), meta[2], *given[4:]
        )
    assert not recorder.waits
    assert len([name for name in recorder.names if name not in FREE]) <= 12, recorder.names


def test_exported_with_dynamic_images_and_sizes(g):
    class Stage(torch.nn.Module):
        def forward(self, logits, deltas, sizes, cells):
            strides = [(64 // m.shape[2], 64 // m.shape[3]) for m in logits]
            return ops.generate_proposals(logits, deltas, sizes, cells, strides=strides, post_nms_top_n=7)

    def inputs(images, sizes):
        made = head(g, images, sizes)
        return tuple(
            made[name] if name == "image_sizes" else [m.float() for m in made[name]]
            for name in ("objectness", "deltas", "image_sizes", "anchors")
        )

    dim, images = torch.export.Dim, torch.export.Dim("images", max=64)
    sizes = [{2: dim(f"height{i}", min=2, max=64), 3: dim(f"width{i}", min=2, max=64)} for i in range(2)]
    maps = [{0: images, **size} for size in sizes]
    shapes = {"logits": maps, "deltas": maps, "sizes": {0: images}, "cells": [None, None]}
    program = torch.export.export(Stage(), inputs(2, [(8, 9), (4, 5)]), dynamic_shapes=shapes)
    for others in (inputs(2, [(8, 9), (4, 5)]), inputs(3, [(7, 12), (5, 4)])):
        assert all(map(torch.equal, program.module()(*others), Stage()(*others)))


def test_the_result_goes_into_roi_align(g):
    made = head(g, 2, [(8, 9), (4, 5)], post_nms_top_n=200)
    boxes, _, counts = ops.generate_proposals(**made)
    assert (counts < 200).all()
    features = [torch.randn(2, 4, *m.shape[2:], generator=g, dtype=torch.float64) for m in made["objectness"]]
    crops = ops.multiscale_roi_align(features, boxes, 2, (1 / 8, 1 / 16), valid=counts).view(2, 200, 4, 2, 2)
    for image in range(2):
        count = int(counts[image])
        rois = [b[:count] if i == image else b[:0] for i, b in enumerate(boxes)]
        assert torch.equal(crops[image, :count], ops.multiscale_roi_align(features, rois, 2, (1 / 8, 1 / 16)))
        assert not crops[image, count:].any()


def test_maps_that_need_a_gradient_pass_none(place, g):
    made = head(g, 1, [(3, 4)], pre_nms_top_n=4, post_nms_top_n=3)
    moved = {name: [m.float().to(place) for m in made[name]] for name in ("objectness", "deltas", "anchors")}
    for maps in moved.values():
        for map_ in maps:
            map_.requires_grad_()
    found = ops.generate_proposals(**{**made, **moved, "image_sizes": made["image_sizes"].to(place)})
    assert not any(result.requires_grad for result in found)


def test_anchors_of_a_grid_and_given_ones_are_the_same(place, g):
    made = head(g, 2, [(5, 3), (2, 2)])
    made["image_sizes"] = made["image_sizes"].to(place)
    given = {"anchors": materialised(made), "strides": None}
    move = lambda maps: [m.float().to(place) for m in maps]  # noqa: E731
    maps = {name: move(made[name]) for name in ("objectness", "deltas")}
    by_grid = ops.generate_proposals(**{**made, **maps, "anchors": move(made["anchors"])})
    by_anchors = ops.generate_proposals(**{**made, **maps, **given, "anchors": move(given["anchors"])})
    assert all(map(torch.equal, by_grid, by_anchors))


@pytest.mark.skipif(not torch.cuda.is_available(), reason="CUDA graphs need a GPU")
@pytest.mark.parametrize("top_n", [1000, 3000])
def test_captured_in_a_cuda_graph(top_n, g):
    made = head(g, 2, [(60, 80), (30, 40)], side=480, pre_nms_top_n=top_n, post_nms_top_n=300)
    moved = {name: [m.float().cuda() for m in made[name]] for name in ("objectness", "deltas", "anchors")}
    made = {**made, **moved, "image_sizes": made["image_sizes"].cuda()}
    run = lambda: ops.generate_proposals(**made)  # noqa: E731
    graph, found = captured(run)
    for map_ in made["objectness"]:
        map_.copy_(map_.flip(2))
    graph.replay()
    assert all(map(torch.equal, found, run()))
