"""structops.patch as a call, a context manager and a decorator, and every trace of it gone afterwards."""

from __future__ import annotations

import asyncio
import sys
import threading
import types

import pytest
import torch
import torchvision

import structops
from structops import integrations
from structops._backend import OPS
from structops.integrations import _torchvision_devices, _torchvision_nms
from structops.integrations import torchvision as integration

from .conftest import boxes_and_scores, is_patched, torchvision_batched_nms


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
            assert early.batched_nms is _torchvision_nms.batched_nms
            late.batched_nms = torchvision.ops.batched_nms
            monkeypatch.setitem(sys.modules, late.__name__, late)
        assert early.batched_nms is torchvision_batched_nms
        assert late.batched_nms is torchvision_batched_nms
        monkeypatch.delitem(sys.modules, late.__name__)

    @pytest.mark.parametrize("function", [structops.patch, structops.unpatch])
    def test_unknown_library(self, function):
        with pytest.raises(ValueError, match="'detectron' is not supported; torch and torchvision are"):
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
        monkeypatch.setattr(_torchvision_devices, "unusable", lambda backend, device: "not built")
        with pytest.warns(RuntimeWarning, match="no fast kernels here: not built"):
            structops.patch()
        assert not is_patched()

    @pytest.mark.parametrize("usable", [None, "native", "triton"])
    def test_cuda_is_left_alone_unless_there_are_kernels_for_it(self, monkeypatch, usable):
        if not torch._C._dispatch_has_kernel_for_dispatch_key("torchvision::nms", "CUDA"):
            usable = None  # a torchvision for CPU only
        monkeypatch.setattr(
            _torchvision_devices,
            "unusable",
            lambda backend, device: None if device == "cpu" or backend == usable else "not built",
        )
        with structops.patch():
            assert is_patched()
            kernel = repr(torch.library.get_kernel("torchvision::nms", "CUDA")) if usable else ""
            assert ("integrations" in kernel) == (usable is not None)


def test_every_op_of_the_integration_exists():
    assert {"roi_align", "roi_align_backward", "nms", "batched_nms"} <= OPS.keys()
