"""Fusion of transposed convolutions into models of every spelling (fusion_models.py)."""

from __future__ import annotations

import copy
import pickle

import pytest
import torch
from fusion_models import (
    BN,
    CHANNELS,
    FCN,
    MODELS,
    AfterActivation,
    Aliased,
    Around,
    AsksInAHelper,
    CallsTheNorm,
    Catches,
    Collects,
    Combines,
    Counts,
    CountsAnew,
    DecidedByABuffer,
    Features,
    Layers,
    ListHeld,
    MayBeNone,
    PartOfASequence,
    Remembers,
    pose_head,
    trained,
)
from torch import nn

import structops
from structops.models._upsample import Upsample
from structops.models.centerface import CenterFace
from structops.nn import FusedConvTranspose2d


@pytest.fixture(autouse=True)
def _seed():
    torch.manual_seed(0)


class TestFusion:
    @pytest.mark.parametrize("name", MODELS)
    @torch.no_grad()
    def test_same_results(self, name):
        make, takes_skip, expected = MODELS[name]
        model = trained(make())
        x, skip = torch.randn(2, CHANNELS, 6, 6), torch.randn(2, CHANNELS, 12, 12)
        if name == "one-activation":
            skip = torch.randn(2, CHANNELS, 24, 24)
        arguments = (x, skip) if takes_skip else (x,)
        before, state = model(*arguments), copy.deepcopy(model.state_dict())
        fused = structops.fuse_conv_transpose(model)
        assert fused.fusion_report.fused == expected
        assert isinstance(fused, (type(model), torch.fx.GraphModule))
        torch.testing.assert_close(fused(*arguments), before, rtol=1e-5, atol=1e-5)
        for again in (copy.deepcopy(fused), pickle.loads(pickle.dumps(fused))) if make is not FCN else ():
            assert torch.equal(again(*arguments), fused(*arguments))
        # The original is as it was.
        assert all(torch.equal(state[k], v) for k, v in model.state_dict().items())
        assert not any(isinstance(m, FusedConvTranspose2d) for m in model.modules())
        assert torch.equal(model(*arguments), before)
        again = structops.fuse_conv_transpose(structops.fuse_conv_transpose(fused), inplace=True, replace_bare=True)
        assert expected.items() <= again.fusion_report.fused.items()

    @pytest.mark.parametrize(
        ("make", "name", "reason"),
        [
            (Features, "conv", "it is called by Features.features too"),
            (Aliased, "conv", "it is called by Aliased.features too"),
            (CallsTheNorm, "conv", "bn is called by CallsTheNorm.features too"),
            (ListHeld, "layers.0", "it is called by ListHeld.features too"),
            (PartOfASequence, "layers.0", "it is called by PartOfASequence.features too"),
            (Around, "blocks.0.conv", "it is called by Around.features too"),
        ],
    )
    @torch.no_grad()
    def test_methods_besides_forward(self, make, name, reason):
        model = trained(make())
        fused = structops.fuse_conv_transpose(model)
        assert fused.fusion_report.left[name] == reason
        x, skip = torch.randn(2, CHANNELS, 6, 6), torch.randn(2, CHANNELS, 12, 12)
        for method in ("forward", "features"):
            for sign in (1, -1):
                ours, theirs = (getattr(m, method)(x.abs() * sign, skip) for m in (fused, model))
                torch.testing.assert_close(ours, theirs, rtol=1e-5, atol=1e-5)

    @pytest.mark.parametrize(
        ("make", "expected"), [(Counts, {"conv": ("relu",)}), (CountsAnew, {}), (DecidedByABuffer, {})]
    )
    @torch.no_grad()
    def test_what_forward_does_with_buffers(self, make, expected):
        model, x = make().eval(), torch.randn(1, CHANNELS, 3, 3)
        fused = structops.fuse_conv_transpose(model)
        assert fused.fusion_report.fused == expected
        for _ in range(2):
            torch.testing.assert_close(fused(x), model(x), rtol=1e-5, atol=1e-5)
        assert fused.calls == model.calls == (0 if make is DecidedByABuffer else 2)
        model.calls.fill_(7), fused.calls.fill_(7)
        torch.testing.assert_close(fused(x), model(x), rtol=1e-5, atol=1e-5)

    @pytest.mark.parametrize("make", [MayBeNone, Combines, Catches, Collects, AsksInAHelper])
    @torch.no_grad()
    def test_what_one_graph_does_not_show(self, make):
        model = trained(make())
        fused = structops.fuse_conv_transpose(model)
        assert list(fused.fusion_report.left) == ["conv"]
        x, skip = torch.randn(2, CHANNELS, 6, 6), torch.randn(2, CHANNELS, 12, 12).abs()
        for arguments in [(x, skip), *([(x, None)] if make in (MayBeNone, Combines) else [])]:
            torch.testing.assert_close(fused(*arguments), model(*arguments), rtol=1e-5, atol=1e-5)
        if make is Collects:
            assert len(fused.seen) == len(model.seen) == 1

    def test_inplace_keeps_the_parameters(self):
        model = trained(AfterActivation())
        weight = model.conv.weight
        assert structops.fuse_conv_transpose(model, inplace=True) is model
        assert model.conv.weight is weight
        assert isinstance(model.bn, nn.Identity)
        assert isinstance(model, AfterActivation)

    def test_report(self):
        model = trained(nn.Sequential(AfterActivation().conv, nn.Tanh(), *pose_head()))
        hooked = trained(pose_head())
        hooked[1].register_forward_hook(lambda *_: None)
        nn.utils.parametrizations.weight_norm(hooked[3]).eval()
        report = structops.fuse_conv_transpose(model).fusion_report
        assert str(report).splitlines() == [
            "2 of 3 transposed convolutions fused",
            "  2  3 (BatchNorm2d) -> 4 (ReLU)",
            "  5  6 (BatchNorm2d) -> 7 (ReLU)",
            "  0  left as it is: nothing that follows it can be folded in",
        ]
        left = structops.fuse_conv_transpose(hooked).fusion_report.left
        assert left["3"] == "it is a ParametrizedConvTranspose2d"
        assert left["0"] == "nothing that follows it can be folded in"

    @torch.no_grad()
    def test_bare_convolutions_if_asked(self):
        class Concatenates(Layers):
            def forward(self, x, skip):
                return torch.cat([self.conv(x), skip], 1)

        model, x, skip = Concatenates().eval(), torch.randn(1, CHANNELS, 5, 6), torch.randn(1, CHANNELS, 10, 12)
        hook = model.conv.register_forward_hook(lambda *_: None)
        assert not structops.fuse_conv_transpose(model, replace_bare=True).fusion_report.fused
        hook.remove()
        fused = structops.fuse_conv_transpose(model, replace_bare=True)
        assert fused.fusion_report.fused == {"conv": ("by itself",)}
        assert structops.fuse_conv_transpose(fused).fusion_report == fused.fusion_report
        assert type(fused.conv) is structops.nn.ConvTranspose2d
        torch.testing.assert_close(fused(x, skip), model(x, skip), rtol=1e-5, atol=1e-5)

    def test_report_says_what_cannot_be_traced(self):
        class Branches(AfterActivation):
            def forward(self, x, skip):
                return super().forward(x, skip) if skip.shape[2] > 2 else x

        class Uncalled(AfterActivation):
            def forward(self, x):
                return x

        def left(model):
            return structops.fuse_conv_transpose(model.eval()).fusion_report.left["conv"]

        assert "(Branches.forward: torch.fx: TraceError: symbolically traced variables" in left(Branches())
        assert "(Remembers.forward: it changes attributes of its module)" in left(Remembers())
        assert left(Uncalled()) == "no forward calls it"

    def test_training_is_refused(self):
        model = AfterActivation().eval()
        model.bn.train()
        with pytest.raises(RuntimeError, match=r"must be in eval mode .*bn is in training mode"):
            structops.fuse_conv_transpose(model)
        with pytest.raises(RuntimeError, match="the model is in training mode"):
            structops.fuse_conv_transpose(model.train())
        batch = nn.BatchNorm2d(CHANNELS, track_running_stats=False)  # statistics of the batch, in eval mode too
        fused = structops.fuse_conv_transpose(nn.Sequential(nn.ConvTranspose2d(CHANNELS, CHANNELS, 2, 2), batch).eval())
        assert not fused.fusion_report.fused

    def test_one_graph(self):
        fused = structops.fuse_conv_transpose(trained(AfterActivation()))
        x, skip = torch.randn(1, CHANNELS, 5, 6), torch.randn(1, CHANNELS, 10, 12)
        compiled = torch.compile(fused, fullgraph=True, backend="aot_eager")
        torch.testing.assert_close(compiled(x, skip), fused(x, skip))
        exported = torch.export.export(fused, (x, skip)).module()
        torch.testing.assert_close(exported(x, skip), fused(x, skip))

    def test_the_input_is_written_through_a_view(self):
        class Clears(nn.Module):
            def forward(self, view):
                return view.zero_()

        class Model(nn.Module):
            def __init__(self):
                super().__init__()
                self.conv, self.clears = nn.ConvTranspose2d(CHANNELS, CHANNELS, 1), Clears()

            def forward(self, x):
                out = self.conv(x)
                self.clears(x.view(-1))
                return out + x

        model, x = Model().eval(), torch.randn(1, CHANNELS, 3, 3)
        with torch.no_grad():
            fused = structops.fuse_conv_transpose(model)
            torch.testing.assert_close(fused(x.clone()), model(x.clone()), rtol=1e-5, atol=1e-5)

    def test_torch_fx(self):
        """As torchvision.models.feature_extraction looks at models."""
        fused = structops.fuse_conv_transpose(trained(AfterActivation()))
        x, skip = torch.randn(1, CHANNELS, 5, 6), torch.randn(1, CHANNELS, 10, 12)
        traced = torch.fx.symbolic_trace(fused)
        assert structops.ops.conv_transpose2d in {node.target for node in traced.graph.nodes}
        torch.testing.assert_close(traced(x, skip), fused(x, skip))

    def test_half_precision(self):
        model = trained(AfterActivation())
        fused = structops.fuse_conv_transpose(model).bfloat16()
        x, skip = torch.randn(1, CHANNELS, 5, 6), torch.randn(1, CHANNELS, 10, 12)
        torch.testing.assert_close(fused(x.bfloat16(), skip.bfloat16()).float(), model(x, skip), rtol=2e-2, atol=6e-2)

    def test_what_calls_the_op_itself_is_left_alone(self):
        model = CenterFace()
        structops.nn.bilinear_kernel_(model.neck.deconv_layers[0].conv.weight)  # read, but not called
        fused = structops.fuse_conv_transpose(model)
        assert len(fused.fusion_report.left) == 3
        assert not fused.fusion_report.fused
        picture = torch.rand(1, 3, 64, 96) * 255
        for ours, theirs in zip(fused(picture), model(picture), strict=True):
            assert torch.equal(ours, theirs)

    def test_centerface(self, monkeypatch):
        def forward(self, x, lateral):  # as networks are written that know no fused op
            return torch.relu(self.bn(self.conv(x))) + lateral

        monkeypatch.setattr(Upsample, "forward", forward)
        monkeypatch.delattr(Upsample, "in_steps")  # it calls the convolution by itself
        model = CenterFace.from_onnx()
        fused = structops.fuse_conv_transpose(model)
        names = [f"neck.deconv_layers.{i}.conv" for i in range(3)]
        assert fused.fusion_report.fused == dict.fromkeys(names, (BN, "relu", "+ lateral"))
        picture = torch.rand(3, 64, 96) * 255
        for ours, theirs in zip(fused(picture[None]), model(picture[None]), strict=True):
            torch.testing.assert_close(ours, theirs, rtol=1e-5, atol=1e-5)
        assert len(fused.detect(picture).boxes) == len(model.detect(picture).boxes)  # its methods are still there
