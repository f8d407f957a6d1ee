"""structops.patch("torch"): torch's transposed convolution on structops' kernel, where that is the faster one."""

from __future__ import annotations

import sys
import types

import pytest
import torch
import torch.nn.functional as F
from torch import nn
from torch.jit import _builtins

import structops
from structops.integrations import torch as integration

theirs = F.conv_transpose2d
CL = torch.channels_last


@pytest.fixture(autouse=True)
def _as_shipped(monkeypatch):
    torch.manual_seed(0)
    monkeypatch.setattr(integration, "_multiplies_tiles", lambda: False)  # whatever this machine does
    yield
    structops.unpatch()
    assert F.conv_transpose2d is theirs
    assert torch.conv_transpose2d is theirs
    assert _builtins._find_builtin(integration.conv_transpose2d) is None


# What goes to which: shape of the input, of the weight, options, type, layouts.
OURS = {
    "unet": ((1, 16, 16, 16), (16, 16, 2, 2), {"stride": 2}),
    "channels-last": ((2, 16, 16, 16), (16, 32, 4, 4), {"stride": 2, "padding": 1}, None, CL),
    "large": ((1, 2, 512, 512), (2, 8, 2, 2), {"stride": (2, 2)}, None, CL),
    "uneven": ((1, 16, 32, 32), (16, 16, 3, 3), {"stride": 2}),
    "fcn": ((1, 5, 9, 8), (5, 5, 16, 16), {"stride": 8, "padding": (4,)}),
    "depthwise": ((1, 3, 32, 32), (3, 1, 8, 8), {"groups": 3, "stride": 4}),
    "double": ((1, 16, 32, 32), (16, 16, 3, 3), {"dilation": 2}, torch.float64),
    "half": ((1, 16, 32, 32), (16, 16, 3, 3), {}, torch.float16),
    "bfloat16": ((1, 16, 16, 16), (16, 16, 2, 2), {"stride": 2}, torch.bfloat16),
    "grouped-bfloat16": ((1, 16, 16, 16), (16, 8, 2, 2), {"groups": 2, "stride": 2}, torch.bfloat16),
}
TORCHS = {
    "small": ((1, 4, 8, 8), (4, 4, 2, 2), {"stride": 2}),
    "no-stride": ((1, 16, 32, 32), (16, 16, 3, 3), {}),
    "uneven-channels-last": ((1, 16, 32, 32), (16, 16, 3, 3), {"stride": 2}, None, CL),
    "uneven-bfloat16": ((1, 16, 32, 32), (16, 16, 3, 3), {"stride": 2}, torch.bfloat16),
    "depthwise-contiguous": ((1, 24, 32, 32), (24, 1, 3, 3), {"groups": 24}),
    "depthwise-channels-last": ((1, 24, 32, 32), (24, 1, 4, 4), {"groups": 24, "stride": 2}, None, CL),
    "bfloat16-channels-last": ((1, 16, 16, 16), (16, 16, 2, 2), {"stride": 2}, torch.bfloat16, CL),
    "copies-channels-last": ((1, 16, 16, 16), (16, 16, 2, 2), {"stride": 2}, None, CL),
    "unbatched": ((16, 16, 16), (16, 16, 2, 2), {"stride": 2}),
    "weight-channels-last": ((1, 16, 16, 16), (16, 16, 2, 2), {"stride": 2}, None, None, CL),
}


def draw(input, weight, options, dtype=None, layout=None, weight_layout=None):
    def tensor(size, form):
        found = torch.randn(size).to(dtype or torch.float32)
        return found if form is None else found.contiguous(memory_format=form)

    bias = torch.randn(weight[1] * options.get("groups", 1)).to(dtype or torch.float32)
    return tensor(input, layout), tensor(weight, weight_layout or layout), bias, options


@pytest.mark.parametrize("name", [*OURS, *TORCHS])
def test_who_computes_what(name, ran):
    x, weight, bias, options = draw(*{**OURS, **TORCHS}[name])
    expected = theirs(x, weight, bias, **options)
    with structops.patch("torch"):
        found = F.conv_transpose2d(x, weight, bias, **options)
    assert ran == (["conv_transpose2d"] if name in OURS else [])
    assert found.dtype == expected.dtype
    assert found.stride() == expected.stride()
    tolerance = {"rtol": 1e-2, "atol": 2e-2} if x.dtype.itemsize == 2 else {"rtol": 1e-5, "atol": 1e-4}
    torch.testing.assert_close(found, expected, **tolerance)


def test_matrix_instructions_are_left_to_torch(ran, monkeypatch):
    monkeypatch.setattr(integration, "_multiplies_tiles", lambda: True)
    for name, expected in ((OURS["bfloat16"], []), (TORCHS["uneven-bfloat16"], ["conv_transpose2d"])):
        x, weight, bias, options = draw(*name)
        with structops.patch("torch"):
            F.conv_transpose2d(x, weight, bias, **options)
        assert ran == expected


def test_opt_in():
    with structops.patch():
        assert F.conv_transpose2d is theirs
    with structops.patch("torch", "torchvision"):
        assert F.conv_transpose2d is integration.conv_transpose2d
        structops.unpatch()
        assert F.conv_transpose2d is theirs


def test_module_in_inference_autocast_and_training(ran):
    x, _, _, options = draw(*OURS["unet"])
    layer = nn.ConvTranspose2d(16, 16, 2, **options)
    expected = layer(x)
    with structops.patch("torch"):
        expected.sum().backward()
        layer(x).sum().backward()
        assert not ran  # steps are torch's
        with torch.inference_mode():
            torch.testing.assert_close(layer(x), expected.detach(), rtol=1e-5, atol=1e-5)
            assert ran == ["conv_transpose2d"]
            with torch.autocast("cpu", torch.float16):
                assert layer(x).dtype == torch.float16
            assert ran == ["conv_transpose2d"] * 2
            with torch.autocast("cpu", torch.bfloat16):
                last = x.contiguous(memory_format=CL)
                assert layer(last).dtype == torch.bfloat16
            assert ran == ["conv_transpose2d"] * 2  # which is torch's


@torch.no_grad()
def test_lookers_on_see_torch(ran):
    x, weight, bias, options = draw(*OURS["unet"])
    layer = nn.ConvTranspose2d(16, 16, 2, **options)

    class Subclass(torch.Tensor):
        pass

    with structops.patch("torch"):
        scripted = torch.jit.script(layer)
        assert "aten::conv_transpose2d" in str(scripted.inlined_graph)
        traced = torch.jit.trace(layer, x, check_trace=False)
        assert "aten::_convolution" in str(traced.inlined_graph)
        symbolic = torch.fx.symbolic_trace(lambda x, w: F.conv_transpose2d(x, w))
        assert theirs in {node.target for node in symbolic.graph.nodes}
        exported = torch.export.export(layer, (x,))
        assert "aten.conv_transpose2d" in str(exported.graph)
        compiled = torch.compile(layer, fullgraph=True, backend="eager")
        torch.vmap(lambda image: F.conv_transpose2d(image[None], weight, bias, **options))(x)
        torch.func.jvp(lambda x: F.conv_transpose2d(x, weight, bias, **options), (x,), (x,))
        F.conv_transpose2d(x.as_subclass(Subclass), weight, bias, **options)
        with torch.utils.flop_counter.FlopCounterMode(display=False) as counter:
            F.conv_transpose2d(x, weight, bias, **options)
        assert counter.get_total_flops() > 0
        results = [f(x) for f in (scripted, traced, compiled)]
    assert not ran
    for result in results:
        torch.testing.assert_close(result, layer(x))


def test_torch_refuses_in_its_own_words():
    x, weight, bias, options = draw(*OURS["unet"])
    wrong = [
        ((x, weight[:3]), {}),
        ((x, weight), {"padding": 40}),
        ((x, weight, bias[:3]), {}),
        ((x, weight), {"stride": 0}),
    ]
    for arguments, changes in wrong:
        with pytest.raises(RuntimeError) as expected:
            theirs(*arguments, **{**options, **changes})
        with structops.patch("torch"), pytest.raises(RuntimeError) as found:
            F.conv_transpose2d(*arguments, **{**options, **changes})
        assert str(found.value) == str(expected.value)


def test_other_modules_that_imported_it(monkeypatch):
    early = types.ModuleType("their_network")
    early.conv_transpose2d = theirs
    monkeypatch.setitem(sys.modules, early.__name__, early)
    with structops.patch("torch"):
        assert early.conv_transpose2d is integration.conv_transpose2d
    assert early.conv_transpose2d is theirs


def test_no_fast_kernels_no_patch(monkeypatch):
    monkeypatch.setattr(integration, "unusable", lambda backend, device: "not built")
    with pytest.warns(RuntimeWarning, match="torch stays as it is, .* no fast kernels here: not built"):
        structops.patch("torch")
    assert F.conv_transpose2d is theirs
