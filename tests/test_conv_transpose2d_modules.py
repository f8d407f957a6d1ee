"""Modules of the transposed convolution, and their fusion into models of every spelling."""

from __future__ import annotations

import copy
import pickle

import pytest
import torch
import torch.nn.functional as F
from torch import nn
from torchvision.models.detection.mask_rcnn import MaskRCNNPredictor
from torchvision.ops import FrozenBatchNorm2d

import structops
from structops.models._upsample import Upsample
from structops.models.centerface import CenterFace
from structops.nn import ConvTranspose2d, FusedConvTranspose2d

CHANNELS = 4


class Layers(nn.Module):
    """What the models below are made of."""

    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.ConvTranspose2d(CHANNELS, CHANNELS, 4, 2, 1)
        self.bn = nn.BatchNorm2d(CHANNELS)
        self.act = nn.ReLU(inplace=True)


class AfterActivation(Layers):
    def forward(self, x, skip):
        return F.relu(self.bn(self.conv(x))) + skip


class BeforeActivation(Layers):
    def forward(self, x, skip):
        return self.act(torch.add(skip, self.bn(self.conv(x))))


class InPlace(Layers):
    def forward(self, x, skip):
        y = self.bn(self.conv(x))
        y += skip
        return F.leaky_relu(y, 0.2, inplace=True)


class Methods(Layers):
    def forward(self, x, skip):
        return self.conv(x).sigmoid().add(skip)


class LateSkip(Layers):
    """The skip is computed after the convolution, and is itself one that is fused."""

    def __init__(self):
        super().__init__()
        self.side = nn.Sequential(nn.ConvTranspose2d(CHANNELS, CHANNELS, 2, 2), nn.BatchNorm2d(CHANNELS))

    def forward(self, x, skip):
        y = torch.relu(self.bn(self.conv(x)))
        return (y + self.side(x)) * skip


class OneActivationForAll(Layers):
    def __init__(self):
        super().__init__()
        self.up = nn.ConvTranspose2d(CHANNELS, CHANNELS, 3, 2, 1)

    def forward(self, x, skip):
        y = self.act(self.bn(self.conv(x)))
        return self.act(self.up(y, skip.shape[2:]) + 1)  # a number is no skip; the size comes by position


class Broadcasts(Layers):
    def forward(self, x, skip):
        return F.silu(self.bn(self.conv(x)) + skip.mean((2, 3), keepdim=True))


class Optional(Layers):
    def forward(self, x, skip=None):
        y = self.act(self.bn(self.conv(x)))
        return y if skip is None else y + skip


class Untraceable(nn.Module):
    def __init__(self):
        super().__init__()
        self.up = nn.Sequential(nn.ConvTranspose2d(CHANNELS, CHANNELS, 2, 2), nn.BatchNorm2d(CHANNELS), nn.GELU())

    def forward(self, x, skip):
        if not self.up or not self.has_up() or self.up is None:
            return x
        return self.up(x) if x.sum() > 0 else -self.up(-x)

    def has_up(self):
        return self.up is not None


class ReadTwice(Layers):
    def forward(self, x, skip):
        y = self.conv(x)
        return self.act(self.bn(y)) + y


class CalledTwice(Layers):
    def forward(self, x, skip):
        return self.act(self.bn(self.conv(x))) + self.act(self.bn(self.conv(x)))


class WrittenBetween(Layers):
    """The convolution must not move past what changes its input."""

    def forward(self, x, skip):
        x = x + 0
        y = self.bn(self.conv(x))
        x.mul_(2)
        return F.relu(y) + x.repeat(1, 1, 2, 2)


class AddedToTheSkip(Layers):
    def forward(self, x, skip):
        skip = skip + 0
        held = skip
        skip += self.bn(self.conv(x))
        return skip + held


class Remembers(Layers):
    """A forward with an effect besides its result, which no graph shows."""

    last = None

    def forward(self, x, skip):
        self.last = self.bn(self.conv(x))
        return F.relu(self.last) + skip


class ListOfLayers(Layers):
    """A sequence of which only the list is used."""

    def __init__(self):
        super().__init__()
        self.layers = nn.Sequential(self.conv, self.bn, self.act)
        del self.conv, self.bn, self.act

    def forward(self, x, skip):
        found = [x]
        for layer in self.layers:
            found.append(layer(found[-1]))
        return found[1] + found[2]


class TakenApart(ListOfLayers):
    """A slice is a sequence that nobody has heard of, which torch.fx cannot follow; the layers keep their meaning."""

    def forward(self, x, skip):
        return self.layers[:2](x) + self.layers(x)


class Counts(Layers):
    def __init__(self):
        super().__init__()
        self.register_buffer("calls", torch.zeros(()))

    def forward(self, x):
        self.calls.add_(1)
        return F.relu(self.conv(x))


class CountsAnew(Counts):
    def forward(self, x):
        self.calls += 1
        return F.relu(self.conv(x))


class DecidedByABuffer(Counts):
    def forward(self, x):
        return F.relu(self.conv(x)) if self.calls == 0 else x


class Features(AfterActivation):
    def features(self, x, skip):
        return self.conv(x)


class Aliased(AfterActivation):
    @property
    def features(self):
        up = self.conv
        return lambda x, skip: up(x)


class CallsTheNorm(AfterActivation):
    def features(self, x, skip):
        return next(self.bn.forward(y) for y in [skip])


class ListHeld(nn.Module):
    def __init__(self):
        super().__init__()
        self.layers = nn.ModuleList(pose_head()[:3])

    def forward(this, x, skip):
        return F.relu(this.layers[1](this.layers[0](x)))

    def features(this, x, skip):
        return this.layers[0](x)


class PartOfASequence(nn.Module):
    def __init__(self):
        super().__init__()
        self.layers = pose_head()

    def forward(self, x, skip):
        return self.layers(x)

    def features(self, x, skip):
        for layer in self.layers[:1]:
            x = layer(x)
        return x


class Around(nn.Module):
    """Cannot be traced, where what it holds can."""

    def __init__(self):
        super().__init__()
        self.blocks = nn.ModuleList([AfterActivation()])

    def forward(self, x, skip):
        return self.blocks[0](x, skip) if x.sum() > 0 else self.features(x, skip)

    def features(self, x, skip):
        return self.blocks[0].conv(x)


class OnlyLooksAtIt(AfterActivation):
    def __init__(self):
        super().__init__()
        self.reset()

    def forward(self, x, skip):
        return F.relu(self.normed(x)) + skip

    def normed(self, x):
        return self.bn(self.conv(x))

    def reset(self):
        if isinstance(self.conv, nn.ConvTranspose2d):
            nn.init.normal_(self.conv.weight)
        for layer in (self.conv, self.bn):
            nn.init.normal_(layer.weight)

    def features(self, x, skip):
        return self(x, skip).to(self.conv.weight.dtype)


class Doubles(nn.Module):
    """Writes to what it is given."""

    def forward(self, x):
        return x.mul_(2).clone()


class ViewWrittenBetween(Layers):
    def __init__(self):
        super().__init__()
        self.doubles = Doubles()

    def forward(self, x, skip):
        y = (x + 0).view(x.shape)
        z = F.relu(self.bn(self.conv(y.reshape(y.shape))))
        return z + self.doubles(y.flatten(2)).mean()


class MayBeNone(Layers):
    def forward(self, x, skip):
        return self.conv(x) if skip is None else F.relu(self.conv(x)) + skip


class Combines(Layers):
    """With one of the two left out it does what it does neither with both nor with none."""

    def forward(self, x, skip=None, size=None):
        y = self.conv(x)
        return y if skip is not None and size is None else self.act(self.bn(y))


class Catches(Layers):
    def forward(self, x, skip):
        try:
            return F.relu(self.conv(x)) if skip.sum() < 0 else self.conv(x)
        except torch.fx.proxy.TraceError:
            return F.relu(self.conv(x))


class Collects(Layers):
    def __init__(self):
        super().__init__()
        self.seen = []

    def forward(self, x, skip):
        self.seen.append(self.conv(x))
        return F.relu(self.seen[-1])


class AsksInAHelper(Layers):
    def forward(self, x, skip):
        return self.conv(x) if self.known(x) else F.relu(self.conv(x))

    def known(self, x):
        return isinstance(x, torch.Tensor)


def frozen() -> nn.Module:
    norm = FrozenBatchNorm2d(CHANNELS)
    norm.running_mean.normal_(), norm.running_var.uniform_(0.5, 2), norm.bias.normal_()
    return nn.Sequential(nn.ConvTranspose2d(CHANNELS, CHANNELS, 2, 2), norm)


def pose_head() -> nn.Module:
    layers: list[nn.Module] = []
    for kernel in (4, 2):
        deconv = nn.ConvTranspose2d(CHANNELS, CHANNELS, kernel, 2, (kernel - 2) // 2, bias=False)
        layers += [deconv, nn.BatchNorm2d(CHANNELS), nn.ReLU(inplace=True)]
    return nn.Sequential(*layers, nn.Conv2d(CHANNELS, 3, 1))


def one_activation_in_a_sequence() -> nn.Module:
    head = pose_head()
    head[5] = head[2]
    return head


class FCN(nn.Module):
    def __init__(self):
        super().__init__()
        self.up = nn.ConvTranspose2d(CHANNELS, CHANNELS, 4, 2, 1, bias=False)
        structops.nn.bilinear_kernel_(self.up.weight)

    def forward(self, x):
        return self.up(x)


BN, ACT = "bn (BatchNorm2d)", "act (ReLU)"
# The model, whether it takes a skip, and what is to be folded into what.
MODELS = {
    "after-activation": (AfterActivation, True, {"conv": (BN, "relu", "+ skip")}),
    "before-activation": (BeforeActivation, True, {"conv": (BN, "+ skip", ACT)}),
    "in-place": (InPlace, True, {"conv": (BN, "+ skip", "leaky_relu")}),
    "methods": (Methods, True, {"conv": ("sigmoid", "+ skip")}),
    "late-skip": (LateSkip, True, {"conv": (BN, "relu", "+ side_1"), "side.0": ("side.1 (BatchNorm2d)",)}),
    "one-activation": (OneActivationForAll, True, {"conv": (BN, ACT)}),
    "broadcasts": (Broadcasts, True, {"conv": (BN, "+ mean", "silu")}),
    "optional": (Optional, True, {"conv": (BN, ACT)}),
    "optional-left-out": (Optional, False, {"conv": (BN, ACT)}),
    "untraceable": (Untraceable, True, {"up.0": ("1 (BatchNorm2d)", "2 (GELU)")}),
    "read-twice": (ReadTwice, True, {}),
    "called-twice": (CalledTwice, True, {}),
    "written-between": (WrittenBetween, True, {"conv": (BN, "relu")}),
    "added-to-the-skip": (AddedToTheSkip, True, {"conv": (BN,)}),
    "remembers": (Remembers, True, {}),
    "taken-apart": (TakenApart, True, {}),
    "view-written-between": (ViewWrittenBetween, True, {"conv": (BN, "relu")}),
    "only-looks-at-it": (OnlyLooksAtIt, True, {"conv": (BN, "relu", "+ skip")}),
    "frozen": (frozen, False, {"0": ("1 (FrozenBatchNorm2d)",)}),
    "list-of-layers": (ListOfLayers, True, {}),
    "pose": (pose_head, False, {"0": ("1 (BatchNorm2d)", "2 (ReLU)"), "3": ("4 (BatchNorm2d)", "5 (ReLU)")}),
    "sequence-one-activation": (
        one_activation_in_a_sequence,
        False,
        {"0": ("1 (BatchNorm2d)",), "3": ("4 (BatchNorm2d)",)},
    ),
    "mask-head": (lambda: MaskRCNNPredictor(CHANNELS, 5, 3), False, {"conv5_mask": ("relu (ReLU)",)}),
    "fcn": (FCN, False, {"up": ("4 x 4 diagonal weight made depthwise",)}),
    "bilinear": (
        lambda: nn.Sequential(structops.nn.BilinearUpsample2d(CHANNELS, 2), nn.ReLU()),
        False,
        {"0": ("1 (ReLU)",)},
    ),
    "graph-module": (
        lambda: torch.fx.symbolic_trace(AfterActivation().eval()),
        True,
        {"conv": (BN, "relu", "+ skip")},
    ),
}


@pytest.fixture(autouse=True)
def _seed():
    torch.manual_seed(0)


def trained(model: nn.Module) -> nn.Module:
    """In eval mode, with statistics that are not trivial."""
    for module in model.modules():
        if isinstance(module, nn.BatchNorm2d):
            module.running_mean.normal_()
            module.running_var.uniform_(0.5, 2)
            nn.init.normal_(module.weight)
            nn.init.normal_(module.bias)
    return model.eval()


class TestModules:
    @pytest.mark.parametrize("output_size", [None, (11, 12), [2, 4, 12, 11]])
    def test_torchs_own_results_and_state(self, output_size):
        theirs = nn.ConvTranspose2d(6, 4, (4, 3), (2, 2), 1, 0, 2, dilation=(1, 2))
        ours = ConvTranspose2d(6, 4, (4, 3), (2, 2), 1, 0, 2, dilation=(1, 2))
        ours.load_state_dict(theirs.state_dict())
        assert repr(ours) == repr(theirs)
        x = torch.randn(2, 6, 5, 5)
        if output_size is not None and len(output_size) == 2:
            output_size = (10, 12)
        elif output_size is not None:
            output_size = [2, 4, 11, 11]
        torch.testing.assert_close(ours(x, output_size), theirs(x, output_size))
        torch.testing.assert_close(ours(x[0]), theirs(x[0]))
        with pytest.raises(ValueError, match="requested an output size"):
            ours(x, (100, 100))

    def test_fused_is_its_formula(self):
        layer = FusedConvTranspose2d(3, 5, 2, 2, affine=True, activation="leaky_relu", negative_slope=0.2)
        nn.init.normal_(layer.scale), nn.init.normal_(layer.shift)
        x, skip = torch.randn(2, 3, 4, 4), torch.randn(2, 5, 8, 8)
        linear = F.conv_transpose2d(x, layer.weight, layer.bias, 2)
        linear = linear * layer.scale[:, None, None] + layer.shift[:, None, None]
        for residual in (skip, skip[:, :, :1, :1], skip.double()):  # the kernel takes the first
            torch.testing.assert_close(layer(x, residual), F.leaky_relu(linear + residual, 0.2))
        torch.testing.assert_close(layer(x), F.leaky_relu(linear, 0.2))
        layer.residual_after_activation = True
        torch.testing.assert_close(layer(x, 2.0), F.leaky_relu(linear, 0.2) + 2)
        with torch.autocast("cpu", torch.bfloat16):
            assert layer(x, skip).dtype == torch.float32  # as torch: bfloat16 and a float32 skip
            assert layer(x, skip.bfloat16()).dtype == torch.bfloat16
        layer(x, skip).square().sum().backward()
        assert all(p.grad is not None for p in layer.parameters())
        with pytest.raises(ValueError, match="activation must be one of none, relu"):
            FusedConvTranspose2d(3, 5, 2, activation="tanh")

    def test_made_without_memory(self):
        """How torch's own tools start a large model: on the meta device, and then every module's reset_parameters."""
        layer = FusedConvTranspose2d(3, 5, 2, affine=True, device="meta").to_empty(device="cpu")
        for parameter in layer.parameters():
            parameter.data.fill_(7)
        layer.reset_parameters()
        assert (layer.scale == 1).all()
        assert (layer.shift == 0).all()
        assert (layer.weight.abs() < 1).all()


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
