"""structops.patch: torchvision's results, from structops' kernels, and every trace of it gone afterwards."""

from __future__ import annotations

import asyncio
import contextlib
import sys
import threading
import types

import pytest
import torch
import torchvision
from torchvision import tv_tensors
from torchvision.models import detection

import structops
from structops import integrations
from structops._backend import OPS, Op
from structops.integrations import torchvision as integration

OPS_PATCHED = ("nms", "roi_align", "_roi_align_backward")
torchvision_batched_nms = torchvision.ops.boxes.batched_nms


@pytest.fixture(autouse=True)
def _unpatched():
    """Each test starts and ends with torchvision as shipped."""
    structops.unpatch()
    before = _state()
    yield
    structops.unpatch()
    assert _state() == before


def _state() -> tuple[list[str], list[str], object]:
    """Everything the patch touches: the dispatcher's tables, the bindings of batched_nms, the deterministic path."""
    tables = [torch._C._dispatch_dump(f"torchvision::{op}") for op in OPS_PATCHED]
    bindings = sorted(
        f"{name}.{key}"
        for name, module in list(sys.modules.items())
        if name.split(".")[0] == "torchvision"
        for key, value in list(vars(module).items())
        if value is torchvision_batched_nms
    )
    return tables, bindings, sys.modules["torchvision.ops.roi_align"]._roi_align


def is_patched() -> bool:
    kernels = [torch.library.get_kernel(f"torchvision::{op}", "CPU") for op in OPS_PATCHED]
    found = {"integrations" in repr(kernel) for kernel in kernels}
    found.add(torchvision.ops.batched_nms is integration.batched_nms)
    found.add(torchvision.ops.boxes.batched_nms is integration.batched_nms)
    assert len(found) == 1, "half patched"
    return found.pop()


@pytest.fixture
def ran(monkeypatch):
    """Names of the structops ops that ran, in order."""
    names: list[str] = []
    call = Op.__call__

    def spy(self, *args):
        names.append(self.name)
        return call(self, *args)

    monkeypatch.setattr(Op, "__call__", spy)
    return names


def boxes_and_scores(n: int, seed: int = 0, spread: float = 100.0, dtype: torch.dtype = torch.float32):
    generator = torch.Generator().manual_seed(seed)
    corner = torch.rand(n, 2, generator=generator) * spread
    boxes = torch.cat([corner, corner + 1 + torch.rand(n, 2, generator=generator) * 20], 1)
    return boxes.to(dtype), torch.rand(n, generator=generator).to(dtype), torch.randint(5, (n,), generator=generator)


class TestApplying:
    def test_call_until_unpatch(self):
        structops.patch("torchvision")
        assert is_patched()
        structops.patch()  # again: nothing more to take back
        structops.unpatch()
        assert not is_patched()
        structops.unpatch()

    def test_blocks_nest(self):
        with structops.patch("torchvision") as outer:
            with structops.patch(), outer:
                assert is_patched()
            assert is_patched()
        assert not is_patched()

    def test_block_inside_a_call_leaves_the_call_its_patch(self):
        structops.patch()
        with structops.patch():
            pass
        assert is_patched()

    def test_restored_after_an_exception(self):
        with pytest.raises(ZeroDivisionError), structops.patch():
            raise ZeroDivisionError
        assert not is_patched()

    def test_unpatch_wins_over_open_blocks(self):
        with structops.patch():
            structops.unpatch("torchvision")
            assert not is_patched()
            with structops.patch():
                assert is_patched()
            assert not is_patched()
        assert not is_patched()
        with structops.patch():
            assert is_patched()

    def test_decorated_functions(self):
        @structops.patch("torchvision")
        def plain(depth):
            return is_patched() and (depth == 0 or plain(depth - 1))

        @structops.patch()
        def generator():
            sent = yield is_patched()
            return sent

        @structops.patch()
        async def coroutine():
            await asyncio.sleep(0)
            return is_patched()

        assert not is_patched()  # decorating is not running
        assert plain(2)
        assert plain.__name__ == "plain"
        assert not is_patched()
        running = generator()
        assert next(running)
        with pytest.raises(StopIteration, match="7"):
            running.send(7)
        assert not is_patched()
        assert asyncio.run(coroutine())
        assert not is_patched()

    def test_many_threads(self):
        boxes, scores, idxs = boxes_and_scores(50)
        expected = torchvision.ops.batched_nms(boxes, scores, idxs, 0.3)
        start, failures = threading.Barrier(8), []

        def work():
            start.wait()
            try:
                for _ in range(10):
                    with structops.patch():
                        assert is_patched()
                        assert torch.equal(torchvision.ops.nms(boxes, scores, 2.0), scores.argsort(descending=True))
                        assert torch.equal(torchvision.ops.batched_nms(boxes, scores, idxs, 0.3), expected)
            except BaseException as error:
                failures.append(error)

        threads = [threading.Thread(target=work) for _ in range(8)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert not failures
        assert not is_patched()

    def test_other_modules_that_imported_batched_nms(self, monkeypatch):
        early, late = types.ModuleType("their_detector"), types.ModuleType("torchvision.their_late_import")
        early.batched_nms = torchvision_batched_nms
        monkeypatch.setitem(sys.modules, early.__name__, early)
        with structops.patch():
            assert early.batched_nms is integration.batched_nms
            late.batched_nms = torchvision.ops.batched_nms
            monkeypatch.setitem(sys.modules, late.__name__, late)
        assert early.batched_nms is torchvision_batched_nms
        assert late.batched_nms is torchvision_batched_nms
        monkeypatch.delitem(sys.modules, late.__name__)

    @pytest.mark.parametrize("function", [structops.patch, structops.unpatch])
    def test_unknown_library(self, function):
        with pytest.raises(ValueError, match="'detectron' is not supported; torchvision is"):
            function("detectron")
        with pytest.raises(ValueError, match=r"as a decorator: @structops\.\w+\(\)"):
            function(lambda: None)

    def test_absent_library(self, monkeypatch):
        monkeypatch.setattr(integrations, "find_spec", lambda name: None)
        with pytest.raises(ImportError, match="torchvision is not installed"):
            structops.patch("torchvision")
        with pytest.raises(ImportError, match="none is installed"):
            structops.patch()
        structops.unpatch()

    def test_torchvision_without_its_compiled_ops(self, monkeypatch):
        monkeypatch.setattr(integration, "_has_ops", lambda: False)
        with pytest.raises(ImportError, match="compiled ops are not loaded"):
            structops.patch()
        monkeypatch.undo()
        assert not is_patched()
        with structops.patch():  # the failure left nothing held
            pass
        assert not is_patched()

    def test_no_fast_kernels_no_patch(self, monkeypatch):
        monkeypatch.setattr(integration, "unusable", lambda backend, device: "not built")
        with pytest.warns(RuntimeWarning, match="no fast kernels here: not built"):
            structops.patch()
        assert not is_patched()

    @pytest.mark.parametrize("usable", [None, "native", "triton"])
    def test_cuda_is_left_alone_unless_there_are_kernels_for_it(self, monkeypatch, usable):
        if not torch._C._dispatch_has_kernel_for_dispatch_key("torchvision::nms", "CUDA"):
            usable = None  # a torchvision for CPU only
        monkeypatch.setattr(
            integration,
            "unusable",
            lambda backend, device: None if device == "cpu" or backend == usable else "not built",
        )
        with structops.patch():
            assert is_patched()
            kernel = repr(torch.library.get_kernel("torchvision::nms", "CUDA")) if usable else ""
            assert ("integrations" in kernel) == (usable is not None)


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


class Head(torch.nn.Module):
    """The two kinds of op in one graph."""

    def forward(self, features: torch.Tensor, boxes: torch.Tensor, scores: torch.Tensor, idxs: torch.Tensor):
        kept = torchvision.ops.batched_nms(boxes, scores, idxs, 0.3)
        rois = torch.nn.functional.pad(boxes[kept], [1, 0])
        return kept, torchvision.ops.roi_align(features, rois, [3, 3], 0.25, 2, True)


class TestGraphs:
    @pytest.fixture
    def inputs(self):
        return torch.rand(1, 4, 40, 40).contiguous(memory_format=torch.channels_last), *boxes_and_scores(60)

    @pytest.mark.parametrize("scripted_while", ["stock", "patched"])
    @pytest.mark.filterwarnings("ignore:`torch.jit")
    def test_scripted(self, ran, inputs, scripted_while):
        expected = Head()(*inputs)
        with structops.patch() if scripted_while == "patched" else contextlib.nullcontext():
            scripted = torch.jit.script(Head())
        assert "structops" not in str(scripted.inlined_graph)  # it can be saved and loaded without structops
        with structops.patch():
            found = scripted(*inputs)
        assert ran == ["nms", "roi_align"]
        torch.testing.assert_close(found, expected)
        torch.testing.assert_close(scripted(*inputs), expected)
        assert len(ran) == 2

    @pytest.mark.filterwarnings("ignore")  # tracing warns about every size it fixes
    def test_traced(self, inputs):
        expected = Head()(*inputs)
        with structops.patch():
            traced = torch.jit.trace(Head(), inputs)
            torch.testing.assert_close(traced(*inputs), expected)
        assert "structops" not in str(traced.inlined_graph)

    def test_compiled(self, inputs):
        torch._dynamo.reset()
        expected = Head()(*inputs)
        compiled = torch.compile(Head(), backend="aot_eager")
        for context in (contextlib.nullcontext, structops.patch, contextlib.nullcontext):
            with context():
                torch.testing.assert_close(compiled(*inputs), expected)

    def test_compiled_roi_align_reaches_the_patch_either_way(self, ran, inputs):
        features, boxes = inputs[0].requires_grad_(), torch.nn.functional.pad(inputs[1], [1, 0])

        def loss(features):
            return torchvision.ops.roi_align(features, boxes, 3, 0.25).square().sum()

        loss(features).backward()
        expected, features.grad = features.grad, None
        compiled = torch.compile(loss, backend="aot_eager", fullgraph=True)
        compiled(features).backward()
        assert ran == []
        features.grad = None
        with structops.patch():  # no recompilation: the graph calls the op, and the op is patched
            compiled(features).backward()
        assert ran == ["roi_align", "roi_align_backward"]
        torch.testing.assert_close(features.grad, expected, atol=1e-4, rtol=1e-4)


def detector(name: str, **options) -> torch.nn.Module:
    """Random weights that still give scores of every size, so that no order hangs on ties or on rounding."""
    torch.manual_seed(0)
    model = getattr(detection, name)(weights=None, weights_backbone=None, **options)
    if "mobilenet" in name:  # its untrained activations die out, unless batch norm knows their statistics
        for module in model.modules():
            if isinstance(module, torch.nn.BatchNorm2d):
                module.momentum = 1.0
        with torch.no_grad():
            model.backbone.train()(torch.randn(2, 3, 96, 128))
        classifiers = [m for n, m in model.named_modules() if n.endswith("cls_score") or "classification_head" in n]
        for module in classifiers:
            if isinstance(module, torch.nn.Linear | torch.nn.Conv2d):
                module.weight.data *= 4
    return model.eval()


SMALL = {"min_size": 96, "max_size": 128}
FEW = {"box_detections_per_img": 20, "rpn_post_nms_top_n_test": 200}
DETECTORS = {
    "fasterrcnn_mobilenet_v3_large_fpn": {**SMALL, **FEW},
    "maskrcnn_resnet50_fpn": {**SMALL, **FEW},
    "keypointrcnn_resnet50_fpn": {**SMALL, **FEW, "box_score_thresh": 0.0},
    "retinanet_resnet50_fpn": {**SMALL, "score_thresh": 0.0},
    "fcos_resnet50_fpn": {**SMALL, "score_thresh": 0.0},
    "ssdlite320_mobilenet_v3_large": {},
}


class TestDetectors:
    @pytest.mark.parametrize("name", DETECTORS)
    def test_same_detections(self, ran, name):
        model = detector(name, **DETECTORS[name])
        images = [torch.rand(3, 96, 128), torch.rand(3, 112, 90)]
        with torch.no_grad():
            expected = model(images)
            assert ran == []
            with structops.patch("torchvision"):
                found = model(images)
        assert "batched_nms" in ran
        assert ("roi_align" in ran) == ("rcnn" in name)
        assert sum(len(theirs["boxes"]) for theirs in expected) >= 20
        for theirs, ours in zip(expected, found, strict=True):
            assert torch.equal(ours.pop("labels"), theirs.pop("labels"))
            for key in theirs:
                # torchvision's own fp32 coordinates are off by 3e-5 of the map's scale; ours are not.
                torch.testing.assert_close(ours[key], theirs[key], atol=2e-3, rtol=1e-3)

    def test_training_step(self, ran):
        model = detector("maskrcnn_resnet50_fpn", **SMALL, num_classes=5).train()
        images = [torch.rand(3, 96, 128), torch.rand(3, 112, 90)]
        targets = [
            {
                "boxes": torch.tensor([[10.0, 12, 60, 70], [30, 20, 80, 90]]),
                "labels": torch.tensor([1, 3]),
                "masks": torch.ones(2, *image.shape[1:], dtype=torch.uint8),
            }
            for image in images
        ]

        def step():
            torch.manual_seed(1)  # proposals are sampled
            model.zero_grad()
            losses = model(images, targets)
            sum(losses.values()).backward()
            gradients = {n: p.grad.clone() for n, p in model.named_parameters() if p.grad is not None}
            return {k: v.detach() for k, v in losses.items()}, gradients

        state = {k: v.clone() for k, v in model.state_dict().items()}
        losses, gradients = step()
        model.load_state_dict(state)  # batch norm statistics
        with structops.patch():
            patched_losses, patched_gradients = step()
        assert {"batched_nms", "roi_align", "roi_align_backward"} <= set(ran)
        torch.testing.assert_close(patched_losses, losses, atol=1e-4, rtol=1e-3)
        assert gradients.keys() == patched_gradients.keys()
        for key, theirs in gradients.items():
            error = (patched_gradients[key] - theirs).norm() / theirs.norm().clamp(min=1e-6)
            assert error < 1e-2, key


def test_every_op_of_the_integration_exists():
    assert {"roi_align", "roi_align_backward", "nms", "batched_nms"} <= OPS.keys()
