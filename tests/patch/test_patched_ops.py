"""structops.patch: what torchvision's functions give, from structops' kernels."""

from __future__ import annotations

import contextlib
import sys

import pytest
import torch
import torchvision
from torchvision import tv_tensors

import structops

from .conftest import boxes_and_scores

POOLINGS = {
    "roi_pool": lambda x, rois: torchvision.ops.roi_pool(x, rois, (3, 2), 0.5),
    "ps_roi_pool": lambda x, rois: torchvision.ops.ps_roi_pool(x, rois, (3, 2), 0.5),
    "ps_roi_align": lambda x, rois: torchvision.ops.ps_roi_align(x, rois, (3, 2), 0.5, 2),
}


def pyramid(dtype: torch.dtype, levels: int = 4):
    """Maps, boxes and image sizes for MultiScaleRoIAlign: boxes of every size from 8 to 250 px."""
    g = torch.Generator().manual_seed(0)
    maps = {str(i): torch.randn(2, 6, 64 >> i, 72 >> i, generator=g).to(dtype) for i in range(levels)}
    corner, size = torch.rand(50, 2, generator=g) * 60, 8 * 30 ** torch.rand(50, 2, generator=g)
    boxes = torch.cat([corner, corner + size], 1).to(dtype)
    return maps, list(boxes.split((31, 19))), [(256, 288), (250, 280)]


class TestPooling:
    @pytest.mark.parametrize("name", POOLINGS)
    @pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
    @pytest.mark.parametrize("memory_format", [torch.contiguous_format, torch.channels_last])
    def test_values_and_gradients(self, ran, name, dtype, memory_format):
        torch.manual_seed(0)
        x = torch.randn(2, 12, 20, 24, dtype=dtype).contiguous(memory_format=memory_format).requires_grad_()
        # Within the map: in its last row and column torchvision's ps_roi_pool passes a gradient to what it never read.
        boxes = [b.to(dtype) for b in boxes_and_scores(12, spread=12)[0].split(6)]
        results = []
        for context in (contextlib.nullcontext, structops.patch):
            with context():
                out = POOLINGS[name](x, boxes)
                results.append((out, *torch.autograd.grad(out, x, torch.ones_like(out))))
        for theirs, ours in zip(*results, strict=True):
            assert (ours.dtype, ours.stride()) == (theirs.dtype, theirs.stride())
            torch.testing.assert_close(ours, theirs, rtol=0, atol=1e-5 if dtype == torch.float32 else 1e-12)
        assert ran == [name, f"{name}_backward"]

    @pytest.mark.parametrize("name", POOLINGS)
    def test_a_graph_made_by_one_is_differentiated_by_the_other(self, name):
        x = torch.randn(2, 12, 20, 24, dtype=torch.float64, requires_grad=True)
        boxes = [b.double() for b in boxes_and_scores(12, spread=12)[0].split(6)]
        out = POOLINGS[name](x, boxes)
        (expected,) = torch.autograd.grad(out, x, torch.ones_like(out), retain_graph=True)
        with structops.patch():
            (theirs_by_ours,) = torch.autograd.grad(out, x, torch.ones_like(out))
            out = POOLINGS[name](x, boxes)
        (ours_by_theirs,) = torch.autograd.grad(out, x, torch.ones_like(out))
        torch.testing.assert_close(theirs_by_ours, expected)
        torch.testing.assert_close(ours_by_theirs, expected)

    @pytest.mark.parametrize("name", POOLINGS)
    def test_what_torchvision_refuses_it_refuses_itself(self, ran, name):
        x, boxes = torch.randn(1, 12, 9, 9), torch.ones(1, 5, dtype=torch.float64)
        with pytest.raises(RuntimeError) as theirs:
            POOLINGS[name](x, boxes)
        with structops.patch(), pytest.raises(RuntimeError) as ours:
            POOLINGS[name](x, boxes)
        assert str(ours.value).splitlines()[0] == str(theirs.value).splitlines()[0]
        assert ran == []


class TestMultiScaleRoIAlign:
    @pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
    @pytest.mark.parametrize("levels", [1, 2, 4])
    def test_values_and_gradients(self, ran, dtype, levels):
        maps, boxes, sizes = pyramid(dtype, levels)
        for x in maps.values():
            x.requires_grad_()
        results = []
        for context in (contextlib.nullcontext, structops.patch):
            with context():
                pooler = torchvision.ops.MultiScaleRoIAlign(list(maps), 3, 2)
                out = pooler(maps, boxes, sizes)
                results.append((out, *torch.autograd.grad(out, list(maps.values()), torch.ones_like(out))))
        for theirs, ours in zip(*results, strict=True):
            assert (ours.dtype, ours.stride()) == (theirs.dtype, theirs.stride())
            torch.testing.assert_close(ours, theirs, rtol=0, atol=2e-5 if dtype == torch.float32 else 1e-12)
        assert ran == (["roi_align", "roi_align_backward"] if levels == 1 else ["multiscale_roi_align"])

    def test_a_rule_of_the_users_own_is_theirs(self, ran):
        class Finest(torchvision.ops.poolers.LevelMapper):
            def __call__(self, boxlists):
                return torch.zeros(sum(map(len, boxlists)), dtype=torch.int64)

        maps, boxes, sizes = pyramid(torch.float32)
        pooler = torchvision.ops.MultiScaleRoIAlign(list(maps), 3, 2)
        pooler(maps, boxes, sizes)
        pooler.map_levels = Finest(2, 5)
        expected = pooler(maps, boxes, sizes)
        with structops.patch():
            torch.testing.assert_close(pooler(maps, boxes, sizes), expected, rtol=0, atol=2e-5)
        assert "multiscale_roi_align" not in ran

    def test_autocast(self, ran):
        maps, boxes, sizes = pyramid(torch.float32)
        maps = {name: x.bfloat16() for name, x in maps.items()}
        pooler = torchvision.ops.MultiScaleRoIAlign(list(maps), 3, 2)
        with torch.autocast("cpu", torch.bfloat16):
            expected = pooler(maps, boxes, sizes)
            with structops.patch():
                found = pooler(maps, boxes, sizes)
        assert (found.dtype, found.stride()) == (expected.dtype, expected.stride())
        torch.testing.assert_close(found, expected)
        assert ran == ["multiscale_roi_align"]

    def test_scripted(self):
        maps, boxes, sizes = pyramid(torch.float32)
        pooler = torchvision.ops.MultiScaleRoIAlign(list(maps), 3, 2)
        expected = pooler(maps, boxes, sizes)
        with structops.patch():
            scripted = torch.jit.script(torchvision.ops.MultiScaleRoIAlign(list(maps), 3, 2))
            torch.testing.assert_close(scripted(maps, boxes, sizes), expected, rtol=0, atol=2e-5)
        torch.testing.assert_close(scripted(maps, boxes, sizes), expected)


@pytest.mark.skipif(not hasattr(torch.ops.torchvision, "box_iou_rotated"), reason="torchvision is older than the op")
class TestRotatedIou:
    @pytest.mark.parametrize("fmt", ["cxcywhr", "xywhr", "xyxyxyxy"])
    @pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
    def test_values(self, ran, dtype, fmt):
        g = torch.Generator().manual_seed(0)
        centre, size = torch.rand(30, 2, generator=g) * 50, 5 + 20 * torch.rand(30, 2, generator=g)
        boxes = torch.cat([centre, size, 360 * torch.rand(30, 1, generator=g)], 1).to(dtype)
        boxes = torchvision.ops.box_convert(boxes, "cxcywhr", fmt) if fmt != "cxcywhr" else boxes
        theirs = torchvision.ops.box_iou(boxes[:12], boxes[12:], fmt)
        with structops.patch():
            ours = torchvision.ops.box_iou(boxes[:12], boxes[12:], fmt)
        assert (ours.dtype, ours.stride()) == (theirs.dtype, theirs.stride())
        torch.testing.assert_close(ours, theirs, rtol=0, atol=1e-5)
        assert ran == ["box_iou_rotated"]

    def test_what_torchvision_refuses_it_refuses_itself(self, ran):
        for boxes in (torch.zeros(3, 5, dtype=torch.int64), torch.zeros(3, 4), torch.zeros(2, 3, 5)):
            with pytest.raises(RuntimeError) as theirs:
                torch.ops.torchvision.box_iou_rotated(boxes, boxes)
            with structops.patch(), pytest.raises(RuntimeError) as ours:
                torch.ops.torchvision.box_iou_rotated(boxes, boxes)
            assert str(ours.value).splitlines()[0] == str(theirs.value).splitlines()[0]
        assert ran == []


class TestOps:
    @pytest.mark.parametrize("n", [0, 1, 300, 3000])
    def test_batched_nms(self, ran, n):
        boxes, scores, idxs = boxes_and_scores(n)
        expected = torchvision.ops.batched_nms(boxes, scores, idxs, 0.3)
        with structops.patch():
            kept = torchvision.ops.batched_nms(boxes, scores, idxs, 0.3)
        assert kept.dtype == torch.int64
        assert torch.equal(kept, expected)
        assert ran == ["batched_nms"]

    def test_batched_nms_is_exact_where_torchvision_is_not(self):
        # Negative coordinates defeat torchvision's offsets: these two, of different classes, then overlap.
        boxes = torch.tensor([[-10.0, -10.0, -1.0, -1.0], [-10.0, -10.0, -1.0, -1.0]])
        scores, idxs = torch.tensor([0.9, 0.8]), torch.tensor([0, 1])
        with structops.patch():
            assert torchvision.ops.batched_nms(boxes, scores, idxs, 0.5).tolist() == [0, 1]

    @pytest.mark.parametrize(
        "dtype", [torch.float16, torch.bfloat16, torch.float32, torch.float64, torch.uint8, torch.int32, torch.bool]
    )
    def test_batched_nms_classes_of_any_dtype(self, ran, dtype):
        boxes, scores, idxs = boxes_and_scores(1200)  # torchvision goes class by class from 1000 boxes on
        idxs = (idxs % 2).to(dtype) if dtype == torch.bool else idxs.to(dtype)
        expected = torchvision.ops.batched_nms(boxes, scores, idxs, 0.3)
        with structops.patch():
            assert torch.equal(torchvision.ops.batched_nms(boxes, scores, idxs, 0.3), expected)
        assert ran == ["batched_nms"]

    def test_batched_nms_fractional_and_signed_zero_classes(self):
        boxes, scores = torch.tensor([[0.0, 0.0, 9.0, 9.0]]).repeat(4, 1), torch.tensor([4.0, 3.0, 2.0, 1.0])
        with structops.patch():
            kept = torchvision.ops.batched_nms(boxes, scores, torch.tensor([0.0, -0.0, 0.25, 0.75]), 0.5)
        assert kept.tolist() == [0, 2, 3]

    @pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
    def test_nms(self, ran, dtype):
        boxes, scores, _ = boxes_and_scores(1000, dtype=dtype)
        scores = (scores * 20).round()  # ties
        expected = torchvision.ops.nms(boxes, scores, 0.4)
        with structops.patch():
            assert torch.equal(torchvision.ops.nms(boxes, scores, 0.4), expected)
        assert ran == ["nms"]

    @pytest.mark.parametrize("dtype", [torch.float16, torch.float32, torch.float64])
    @pytest.mark.parametrize("memory_format", [torch.contiguous_format, torch.channels_last])
    def test_roi_align(self, ran, dtype, memory_format):
        torch.manual_seed(0)
        features = torch.randn(2, 8, 20, 24).to(dtype).contiguous(memory_format=memory_format)
        boxes = [b.to(dtype) for b in boxes_and_scores(12, spread=16)[0].split(6)]
        results = []
        for context in (contextlib.nullcontext, structops.patch):
            with context():
                leaf = features.clone().requires_grad_()
                out = torchvision.ops.roi_align(leaf, boxes, (3, 4), 0.5, 2, True)
                (gradient,) = torch.autograd.grad(out.square().sum(), leaf)
                results.append((out, gradient))
        assert ran == ["roi_align", "roi_align_backward"]
        # torchvision takes coordinates in the features' dtype; in float16 it is the one that is off.
        tolerance = {torch.float16: 0.1, torch.float32: 1e-4, torch.float64: 1e-11}[dtype]
        for theirs, ours in zip(*results, strict=True):
            assert ours.dtype == dtype
            assert ours.stride() == theirs.stride()
            torch.testing.assert_close(ours, theirs, atol=tolerance, rtol=tolerance)

    def test_empty(self):
        with structops.patch():
            out = torchvision.ops.roi_align(torch.rand(1, 3, 8, 8), torch.empty(0, 5), 7)
            assert out.shape == (0, 3, 7, 7)
            assert torchvision.ops.nms(torch.empty(0, 4), torch.empty(0), 0.5).shape == (0,)

    def test_no_double_backward_as_in_torchvision(self):
        features = torch.rand(1, 1, 8, 8, requires_grad=True)
        with structops.patch():
            out = torchvision.ops.roi_align(features, torch.tensor([[0, 1.0, 1, 5, 5]]), 2)
            (gradient,) = torch.autograd.grad(out.square().sum(), features, create_graph=True)
            with pytest.raises(RuntimeError, match="ouble backward"):
                gradient.sum().backward()

    def test_crash_of_torchvision_is_gone(self):
        with structops.patch():
            out = torchvision.ops.roi_align(torch.rand(1, 2, 8, 8), torch.tensor([[0, torch.nan, 0, 4, 4]]), 2)
        assert out.isnan().all()

    def test_bfloat16_as_an_addition(self):
        boxes, scores, idxs = boxes_and_scores(30, dtype=torch.bfloat16)
        with structops.patch():
            out = torchvision.ops.roi_align(
                torch.rand(1, 2, 8, 8).bfloat16(), torch.tensor([[0, 0.0, 0, 4, 4]]).bfloat16(), 2
            )
            assert out.dtype == torch.bfloat16
            assert len(torchvision.ops.nms(boxes, scores, 0.5))
            assert len(torchvision.ops.batched_nms(boxes, scores, idxs, 0.5))

    @pytest.mark.parametrize(
        "call",
        [
            pytest.param(lambda b, s, i: torchvision.ops.nms(b, s.double(), 0.5), id="nms-dtypes"),
            pytest.param(lambda b, s, i: torchvision.ops.nms(b[:, :3], s, 0.5), id="nms-shape"),
            pytest.param(lambda b, s, i: torchvision.ops.nms(b.int(), s.int(), 0.5), id="nms-int"),
            pytest.param(lambda b, s, i: torchvision.ops.batched_nms(b, s[1:], i, 0.5), id="batched-length"),
            pytest.param(lambda b, s, i: torchvision.ops.batched_nms(b, s, i[1:], 0.5), id="batched-classes"),
            pytest.param(
                lambda b, s, i: torchvision.ops.roi_align(torch.rand(1, 1, 8, 8).double(), [b], 2), id="roi-dtypes"
            ),
            pytest.param(lambda b, s, i: torchvision.ops.roi_align(torch.rand(1, 1, 8, 8), b, 2), id="roi-shape"),
        ],
    )
    def test_errors_are_torchvisions_own(self, call):
        arguments = boxes_and_scores(10)
        with pytest.raises(Exception) as theirs:
            call(*arguments)
        with structops.patch(), pytest.raises(theirs.type) as ours:
            call(*arguments)
        assert str(ours.value) == str(theirs.value)

    def test_negative_threshold_keeps_torchvisions_meaning(self):
        boxes, scores, idxs = boxes_and_scores(20)
        expected = torchvision.ops.nms(boxes, scores, -1.0), torchvision.ops.batched_nms(boxes, scores, idxs, -1.0)
        with structops.patch():
            assert torch.equal(torchvision.ops.nms(boxes, scores, -1.0), expected[0])
            assert torch.equal(torchvision.ops.batched_nms(boxes, scores, idxs, -1.0), expected[1])

    def test_autocast(self, ran):
        boxes, scores, idxs = boxes_and_scores(40)
        rois = torch.cat([torch.zeros(40, 1), boxes], 1)
        features = torch.rand(1, 2, 128, 128)

        def run():
            with torch.autocast("cpu", torch.bfloat16):
                return (
                    torchvision.ops.roi_align(features, rois, 3),
                    torchvision.ops.nms(boxes, scores.half(), 0.3),
                    torchvision.ops.batched_nms(boxes, scores, idxs, 0.3),
                )

        expected = run()
        with structops.patch():
            found = run()
        assert ran == ["roi_align", "nms", "batched_nms"]
        assert found[0].dtype == expected[0].dtype
        torch.testing.assert_close(found, expected, atol=1e-4, rtol=1e-4)

    def test_deterministic_flag(self, ran):
        features, boxes = torch.rand(1, 2, 16, 16, requires_grad=True), torch.tensor([[0, 1.0, 1, 9, 9]])
        torch.use_deterministic_algorithms(True)
        try:
            with structops.patch():
                torchvision.ops.roi_align(features, boxes, 2).sum().backward()
                # What torchvision calls on a GPU under the flag, instead of the op.
                out = sys.modules["torchvision.ops.roi_align"]._roi_align(features, boxes, 1.0, 2, 2, -1, False)
        finally:
            torch.use_deterministic_algorithms(False)
        assert ran == ["roi_align", "roi_align_backward", "roi_align"]
        assert out.shape == (1, 2, 2, 2)

    def test_backend_choice_holds(self):
        boxes, scores, _ = boxes_and_scores(20)
        expected = torchvision.ops.nms(boxes, scores, 0.3)
        with structops.patch(), structops.backend("reference"):
            assert torch.equal(torchvision.ops.nms(boxes, scores, 0.3), expected)

    def test_tv_tensors(self):
        boxes, scores, idxs = boxes_and_scores(40)
        labelled = tv_tensors.BoundingBoxes(boxes, format="XYXY", canvas_size=(128, 128))
        expected = torchvision.ops.batched_nms(labelled, scores, idxs, 0.3)
        with structops.patch():
            kept = torchvision.ops.batched_nms(labelled, scores, idxs, 0.3)
        assert type(kept) is type(expected)
        assert torch.equal(kept, expected)
