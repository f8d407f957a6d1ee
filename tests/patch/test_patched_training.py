"""structops.patch: the focal loss and the anchors of torchvision's detectors, from structops' kernels."""

from __future__ import annotations

import contextlib

import pytest
import torch
import torchvision
from torchvision.models.detection.anchor_utils import AnchorGenerator, DefaultBoxGenerator
from torchvision.models.detection.image_list import ImageList

import structops

DTYPES = [torch.float16, torch.bfloat16, torch.float32, torch.float64]


def logits_and_targets(*size: int, dtype: torch.dtype = torch.float32):
    g = torch.Generator().manual_seed(0)
    return 2 * torch.randn(*size, generator=g).to(dtype), (torch.rand(*size, generator=g) < 0.2).to(dtype)


def images_and_maps(dtype: torch.dtype, images: int = 2):
    maps = [torch.zeros(images, 4, -(-130 // s), -(-180 // s), dtype=dtype) for s in (8, 16, 32)]
    return ImageList(torch.zeros(images, 3, 130, 180, dtype=dtype), [(130, 180)] * images), maps


class TestSigmoidFocalLoss:
    @pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
    @pytest.mark.parametrize("reduction", ["none", "mean", "sum"])
    def test_values_and_gradients(self, ran, dtype, reduction):
        x, t = logits_and_targets(30, 7, dtype=dtype)
        results = []
        for context in (contextlib.nullcontext, structops.patch):
            with context():
                leaf = x.clone().requires_grad_()
                loss = torchvision.ops.sigmoid_focal_loss(leaf, t, 0.3, 1.5, reduction)
                results.append((loss, *torch.autograd.grad(loss, leaf, torch.ones_like(loss))))
        for theirs, ours in zip(*results, strict=True):
            assert (ours.dtype, ours.stride()) == (theirs.dtype, theirs.stride())
            torch.testing.assert_close(ours, theirs, rtol=1e-5, atol=1e-6)
        assert ran[:1] == ["sigmoid_focal_loss"]

    @pytest.mark.parametrize("types", [(torch.bfloat16, torch.bfloat16), (torch.bfloat16, torch.float32)])
    @pytest.mark.parametrize("autocast", [False, True])
    def test_types_are_torchvisions(self, ran, types, autocast):
        x, t = (v.to(dtype) for v, dtype in zip(logits_and_targets(9, 4), types, strict=True))
        results = []
        for context in (contextlib.nullcontext, structops.patch):
            with context(), torch.autocast("cpu", torch.bfloat16, enabled=autocast):
                results.append(torchvision.ops.sigmoid_focal_loss(x, t))
        assert results[1].dtype == results[0].dtype
        torch.testing.assert_close(results[1], results[0], rtol=0.05, atol=0.02)
        assert ran == ["sigmoid_focal_loss"]

    def test_strides_are_torchvisions(self, ran):
        x, t = logits_and_targets(2, 3, 5, 4)
        last = {"memory_format": torch.channels_last}
        for pair in ((x.contiguous(**last), t.contiguous(**last)), (x.mT, t.mT), (x.contiguous(**last), t)):
            theirs = torchvision.ops.sigmoid_focal_loss(*pair)
            with structops.patch():
                ours = torchvision.ops.sigmoid_focal_loss(*pair)
            assert ours.stride() == theirs.stride()
            torch.testing.assert_close(ours, theirs, rtol=1e-5, atol=1e-6)
        assert ran == ["sigmoid_focal_loss"]  # of the first; the others are torchvision's

    def test_what_torchvision_refuses_it_refuses_itself(self, ran):
        x, t = logits_and_targets(5, 4)
        for arguments in ((x, t[:4]), (x, t, 1.5), (x, t, -0.5), (x, t, 0.25, 2, "max")):
            with pytest.raises(ValueError) as theirs:
                torchvision.ops.sigmoid_focal_loss(*arguments)
            with structops.patch(), pytest.raises(ValueError) as ours:
                torchvision.ops.sigmoid_focal_loss(*arguments)
            assert str(ours.value) == str(theirs.value)
        assert ran == []

    def test_what_the_op_does_not_take_is_torchvisions(self, ran):
        x, t = logits_and_targets(5, 4)
        loss = torchvision.ops.sigmoid_focal_loss
        expected = loss(x, t, gamma=-1), torch.func.vmap(loss)(x, t), torch.func.jvp(lambda x: loss(x, t), (x,), (x,))
        with structops.patch():
            loss = torchvision.ops.sigmoid_focal_loss
            found = loss(x, t, gamma=-1), torch.func.vmap(loss)(x, t), torch.func.jvp(lambda x: loss(x, t), (x,), (x,))
        torch.testing.assert_close(found, expected)
        assert ran == []

    def test_learned_targets(self):
        x, t = logits_and_targets(5, 4)
        t = (0.1 + 0.8 * t).requires_grad_()
        (expected,) = torch.autograd.grad(torchvision.ops.sigmoid_focal_loss(x, t, reduction="sum"), t)
        with structops.patch():
            (found,) = torch.autograd.grad(torchvision.ops.sigmoid_focal_loss(x, t, reduction="sum"), t)
        torch.testing.assert_close(found, expected)

    def test_scripted_traced_and_compiled(self, ran):
        x, t = logits_and_targets(6, 5)

        def mean(x, t):
            return torchvision.ops.sigmoid_focal_loss(x, t, reduction="mean")

        expected = mean(x, t)
        with structops.patch():
            traced = torch.jit.trace(mean, (x, t), check_trace=False)
            scripted = torch.jit.script(torchvision.ops.sigmoid_focal_loss)
            assert ran == []
            compiled = torch.compile(mean, fullgraph=True, backend="eager")
            torch.testing.assert_close(compiled(x, t), expected)
            assert ran == ["sigmoid_focal_loss"]
        torch.testing.assert_close(traced(x, t), expected)
        torch.testing.assert_close(scripted(x, t, reduction="mean"), expected)

    def test_detectors_use_it(self, ran):
        from torchvision.models.detection import fcos, retinanet

        with structops.patch():
            assert retinanet.sigmoid_focal_loss is torchvision.ops.sigmoid_focal_loss
            assert fcos.sigmoid_focal_loss is torchvision.ops.sigmoid_focal_loss
            fcos.sigmoid_focal_loss(*logits_and_targets(2, 3))
        assert ran == ["sigmoid_focal_loss"]


class TestAnchors:
    @pytest.mark.parametrize("dtype", DTYPES)
    def test_anchors_to_the_bit(self, ran, dtype):
        generator = AnchorGenerator(((16, 20), (32, 40), (64, 80)), ((0.5, 1.0, 2.0),) * 3)
        expected = generator(*images_and_maps(dtype))
        cells = generator.cell_anchors
        with structops.patch():
            generator.set_cell_anchors(torch.float32, torch.device("cpu"))
            found = generator(*images_and_maps(dtype))
        assert ran == ["generate_anchors"] * 2
        assert type(found) is type(expected)
        assert all(map(torch.equal, found, expected))
        assert [f.dtype for f in found] == [dtype] * 2
        assert found[0].data_ptr() != found[1].data_ptr()
        assert all(c.dtype == dtype for c in cells)

    def test_grids(self, ran):
        generator = AnchorGenerator(((16,), (32,)), ((0.5, 1.0),) * 2)
        grids, strides = [(3, 4), torch.Size((2, 2))], [[8, 9], [torch.tensor(16), torch.tensor(15)]]
        expected = generator.grid_anchors(grids, strides)
        with structops.patch():
            found = generator.grid_anchors(grids, strides)
        assert ran == ["generate_anchors"]
        assert type(found) is type(expected)
        assert all(map(torch.equal, found, expected))

    def test_what_torchvision_alone_takes(self, ran):
        generator = AnchorGenerator(((16,),), ((1.0,),))
        maps = torch.zeros(1, 3, 4, 5)
        calls = {
            "float strides": lambda: generator.grid_anchors([(3, 4)], [[8.5, 8.5]]),
            "negative strides": lambda: generator.grid_anchors([(3, 4)], [[-8, 8]]),
            "too few levels": lambda: generator.grid_anchors([(3, 4)] * 2, [[8, 8]] * 2),
            "no pixels": lambda: generator(ImageList(maps, [(4, 5)]), [torch.zeros(1, 1, 0, 3)]),
        }
        for name, call in calls.items():
            outcomes = []
            for context in (contextlib.nullcontext, structops.patch):
                with context():
                    try:
                        outcomes.append(call()[0].tolist())
                    except (AssertionError, ZeroDivisionError) as error:
                        outcomes.append(repr(error))
            assert outcomes[0] == outcomes[1], name
        assert ran == []

    def test_a_subclass_keeps_its_own_ways(self, ran):
        class Shifted(AnchorGenerator):
            def grid_anchors(self, grid_sizes, strides):
                return [a + 0.5 for a in super().grid_anchors(grid_sizes, strides)]

        generator = Shifted(((16,),) * 3, ((1.0,),) * 3)
        expected = generator(*images_and_maps(torch.float32))
        with structops.patch():
            found = generator(*images_and_maps(torch.float32))
        assert all(map(torch.equal, found, expected))

    @pytest.mark.parametrize("dtype", DTYPES)
    @pytest.mark.parametrize("options", [{}, {"steps": [8, 16, 32]}, {"clip": False}], ids=str)
    def test_default_boxes_to_the_bit(self, ran, dtype, options):
        generator = DefaultBoxGenerator([[2], [2, 3], [2]], **options)
        expected = generator(*images_and_maps(dtype))
        with structops.patch():
            found = generator(*images_and_maps(dtype))
        assert ran == ["default_boxes"] * (2 if dtype in (torch.float32, torch.float64) else 0)
        assert type(found) is type(expected)
        assert [f.dtype for f in found] == [e.dtype for e in expected]
        assert all(map(torch.equal, found, expected))

    @pytest.mark.parametrize("make", [AnchorGenerator, lambda: DefaultBoxGenerator([[2]])], ids=["anchors", "boxes"])
    def test_scripted_and_traced_are_torchvisions(self, ran, make):
        image_list, maps = images_and_maps(torch.float32)
        (expected, *_) = make()(image_list, maps[:1])

        def anchors(tensors, map_):
            return generator(ImageList(tensors, [(130, 180)]), [map_])[0]

        with structops.patch():
            generator = make()
            scripted = torch.jit.script(generator)
            traced = torch.jit.trace(anchors, (image_list.tensors, maps[0]), check_trace=False)
            assert torch.equal(scripted(image_list, maps[:1])[0], expected)
            assert torch.equal(traced(image_list.tensors, maps[0]), expected)
        assert ran == []
        assert torch.equal(scripted(image_list, maps[:1])[0], expected)
