"""Small models in every spelling, for tests of structops.fuse_conv_transpose: what is folded in each, and why not."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import nn
from torchvision.models.detection.mask_rcnn import MaskRCNNPredictor
from torchvision.ops import FrozenBatchNorm2d

import structops

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


def trained(model: nn.Module) -> nn.Module:
    """In eval mode, with statistics that are not trivial."""
    for module in model.modules():
        if isinstance(module, nn.BatchNorm2d):
            module.running_mean.normal_()
            module.running_var.uniform_(0.5, 2)
            nn.init.normal_(module.weight)
            nn.init.normal_(module.bias)
    return model.eval()
