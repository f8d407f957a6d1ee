"""structops.patch under scripting, tracing, compilation and export."""

from __future__ import annotations

import contextlib

import pytest
import torch
import torchvision

import structops

from .conftest import boxes_and_scores, code_of


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
        assert "structops" not in code_of(scripted.inlined_graph)  # it can be saved and loaded without structops
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
        assert "structops" not in code_of(traced.inlined_graph)

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
