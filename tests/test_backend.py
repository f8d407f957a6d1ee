"""The choice of a backend, and errors that do not reach an op."""

import os
import subprocess
import sys
import threading

import pytest
import torch
from torch._subclasses.fake_tensor import FakeTensorMode

import structops
from structops import _backend, ops, testing

BOXES, SCORES = torch.rand(4, 4), torch.rand(4)


def python(code, **environment):
    return subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, env={**os.environ, **environment}, timeout=300
    )


def test_backend_nests_and_is_restored():
    before = structops.current_backend()
    with structops.backend("reference"):
        with structops.backend("native"):
            assert structops.current_backend() == "native"
        assert structops.current_backend() == "reference"
        with pytest.raises(KeyError), structops.backend("native"):
            raise KeyError
        assert structops.current_backend() == "reference"
    assert structops.current_backend() == before


def test_backend_is_of_one_thread():
    seen = []
    with structops.backend("reference"):
        thread = threading.Thread(target=lambda: seen.append(structops.current_backend()))
        thread.start()
        thread.join()
    assert seen == [_backend._default]


def test_backend_must_be_known():
    with (
        pytest.raises(ValueError, match="must be one of native, triton, reference, got 'cuda'"),
        structops.backend("cuda"),
    ):
        pass


def test_environment_chooses_the_default():
    code = "import structops; print(structops.current_backend())"
    assert python(code, STRUCTOPS_BACKEND="reference").stdout.strip() == "reference"
    assert "STRUCTOPS_BACKEND must be one of" in python(code, STRUCTOPS_BACKEND="fast").stderr


def test_each_backend_calls_its_own_ops():
    from structops.testing.graph_checks import dispatcher_calls

    spec = testing.specs()["roi_align"]
    for name in testing.usable_backends("cpu"):
        target = testing.Target(name)
        called = {f._schema.name for f, _, _ in dispatcher_calls(spec, spec.case("gradient"), target)}
        namespace = {"native": "structops"}.get(name, f"structops_{name}")
        assert called == {f"{namespace}::roi_align", f"{namespace}::roi_align_backward"}


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a GPU, so Triton needs no interpreter")
def test_triton_without_a_gpu_or_interpreter_is_refused():
    code = (
        "import torch, structops\n"
        "with structops.backend('triton'): structops.ops.nms(torch.rand(4, 4), torch.rand(4), 0.5)"
    )
    assert "cannot run on cpu" in python(code, TRITON_INTERPRET="0").stderr


def test_without_the_library_the_reference_runs_with_one_warning():
    code = (
        "import pathlib, warnings, torch\n"
        "import torch._ops\n"
        "def refuse(self, path): raise OSError('planted')\n"
        "torch._ops._Ops.load_library = refuse\n"
        "import structops\n"
        "with warnings.catch_warnings(record=True) as caught:\n"
        "    warnings.simplefilter('always')\n"
        "    for _ in range(3):\n"
        "        assert len(structops.ops.nms(torch.rand(1, 4), torch.rand(1), 0.5)) == 1\n"
        "messages = [str(w.message) for w in caught if 'structops' in str(w.message)]\n"
        "assert len(messages) == 1 and 'slow reference' in messages[0] and 'planted' in messages[0], messages\n"
    )
    done = python(code)
    assert done.returncode == 0, done.stderr


@pytest.mark.parametrize("name", testing.specs())
def test_bad_arguments_are_refused_while_tracing(name):
    # The fake kernel checks what the real one checks; values (an index out of range) it cannot see.
    spec = testing.specs()[name]
    for case in spec.errors:
        arguments = case.make()
        tensors = [v for v in arguments.values() if isinstance(v, torch.Tensor)]
        if case.op or case.device or any(t.device.type == "meta" for t in tensors):
            continue
        with FakeTensorMode(allow_non_fake_inputs=True) as mode:
            fake = {k: mode.from_tensor(v) if isinstance(v, torch.Tensor) else v for k, v in arguments.items()}
            with pytest.raises(RuntimeError, match=case.match):
                spec.function(**fake)


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs two kinds of device")
def test_tensors_on_two_devices_are_refused():
    with pytest.raises(RuntimeError, match="scores must be on the same device as boxes"):
        ops.nms(BOXES.cuda(), SCORES, 0.5)
    with pytest.raises(RuntimeError, match="boxes must be on the same device as input"):
        ops.roi_align(torch.zeros(1, 1, 4, 4).cuda(), torch.zeros(1, 5), 2)


@pytest.mark.parametrize("backend", ["native", "reference"])
@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda boxes: ops.nms(boxes, None, 0.5), "nms: scores must be a tensor, got NoneType"),
        (
            lambda boxes: ops.batched_nms(boxes, boxes[:, 0], [1, 2], 0.5),
            "batched_nms: idxs must be a tensor, got list",
        ),
        (lambda boxes: ops.nms([1, 2], boxes, 0.5), "nms: the first argument must be a tensor, got"),
        (
            lambda boxes: ops.encode_masks(boxes[None].bool(), width="4"),
            "encode_masks: width must be a whole number of 64 bits, or None, got '4'",
        ),
        (
            lambda boxes: ops.paste_masks(boxes.view(2, 2, 2), boxes, (4, 4), packed=[1]),
            r"paste_masks: packed must be True or False, got \[1\]",
        ),
        (
            lambda boxes: ops.paste_masks(boxes.view(2, 2, 2), boxes, (4, 4), "half"),
            "paste_masks: threshold must be a number or None, got 'half'",
        ),
    ],
)
def test_an_argument_of_the_wrong_type_is_named(backend, call, message):
    with structops.backend(backend), pytest.raises(RuntimeError, match=message):
        call(torch.rand(2, 4))
