"""Cases of RoI Align along time."""

from __future__ import annotations

import torch

from structops.ops import roi_align_1d
from structops.testing.cases._draw import INF, NAN, CaseList, tensor, uniform
from structops.testing.spec import Arguments, ErrorCase, OpSpec

CASES = CaseList()


def arguments(input: torch.Tensor, segments: object, output_size: object, **options: object) -> Arguments:
    return {"input": input, "segments": segments, "output_size": output_size, **options}


def sequences(g: torch.Generator, n: int, c: int, t: int) -> torch.Tensor:
    """``[n, c, t]``, unit variance."""
    return torch.randn(n, c, t, generator=g, dtype=torch.float64)


def segments(g: torch.Generator, k: int, images: int, length: float, smallest: float = 1.0) -> torch.Tensor:
    """``[k, 3]``: centres in the sequence, lengths from ``smallest`` to half of it."""
    index = torch.randint(images, (k, 1), generator=g).double()
    centre, half = uniform(g, 0, length, k, 1), uniform(g, smallest, max(length / 2, smallest), k, 1) / 2
    return torch.cat([index, centre - half, centre + half], 1)


# Typical: proposals of a temporal action detector, on one level of features and at a stride.


@CASES.add("proposals")
def _(g):
    return arguments(sequences(g, 2, 64, 100), segments(g, 30, 2, 800), 16, spatial_scale=1 / 8, sampling_ratio=2)


@CASES.add("long-proposals")
def _(g):
    return arguments(sequences(g, 1, 24, 256), segments(g, 20, 1, 256), 32, aligned=True)


@CASES.add("defaults", "quick")
def _(g):
    return arguments(sequences(g, 2, 5, 17), segments(g, 6, 2, 17), 4)


@CASES.add("list-of-segments", "quick")
def _(g):
    per_video = [segments(g, n, 1, 30)[:, 1:] for n in (3, 0, 4)]
    return arguments(sequences(g, 3, 4, 30), per_video, 3, sampling_ratio=2)


@CASES.add("list-of-bfloat16-segments")  # which holds no index above 256 exactly
def _(g):
    per_video = [segments(g, 1, 1, 3)[:, 1:].bfloat16() for _ in range(300)]
    return arguments(sequences(g, 300, 1, 3), per_video, 1, sampling_ratio=1)


def _sampling(ratio: int, aligned: bool):
    def make(g):
        options = {"spatial_scale": 0.5, "sampling_ratio": ratio, "aligned": aligned}
        return arguments(sequences(g, 2, 9, 31), segments(g, 12, 2, 62, smallest=0.5), 5, **options)

    return make


for _ratio in (-1, 0, 1, 2, 3, 49):
    for _aligned in (False, True):
        _label = f"sampling={_ratio}-{'aligned' if _aligned else 'unaligned'}"
        CASES.add(_label, "", _sampling(_ratio, _aligned))


def _shape(channels: int, length: int):
    def make(g):
        return arguments(sequences(g, 2, channels, length), segments(g, 6, 2, length, 0.2), 3)

    return make


for _channels, _length in ((1, 9), (3, 1), (17, 2), (257, 8)):
    CASES.add(f"channels={_channels}-length={_length}", "", _shape(_channels, _length))


@CASES.add("gradient", "gradient quick")
def _(g):
    return arguments(sequences(g, 2, 2, 6), segments(g, 3, 2, 6), 3, sampling_ratio=2)


@CASES.add("gradient-adaptive", "gradient")
def _(g):
    return arguments(sequences(g, 1, 3, 7), segments(g, 3, 1, 14, 0.3), 2, spatial_scale=0.5, aligned=True)


@CASES.add("edges")  # samples exactly at -1, 0, T - 1 and T
def _(g):
    starts = torch.arange(-3, 10, 0.5, dtype=torch.float64)
    return arguments(sequences(g, 1, 3, 8), torch.stack([0 * starts, starts, starts + 2], 1), 2, sampling_ratio=1)


@CASES.add("untouched-nan")  # steps with no weight hold NaN, which must not leak into the result
def _(g):
    x = torch.full((1, 3, 16), NAN, dtype=torch.float64)
    x[:, :, 4:10] = sequences(g, 1, 3, 6)
    return arguments(x, tensor([0, 4, 9], [0, 4.5, 8.25]), 3, sampling_ratio=2)


@CASES.add("no-segments", "empty quick")
def _(g):
    return arguments(sequences(g, 2, 3, 8), torch.empty(0, 3, dtype=torch.float64), 7)


@CASES.add("no-channels", "empty")
def _(g):
    return arguments(sequences(g, 2, 0, 8), segments(g, 4, 2, 8), 7, sampling_ratio=2)


@CASES.add("no-sequences", "empty")
def _(g):
    return arguments(sequences(g, 0, 3, 8), torch.empty(0, 3, dtype=torch.float64), 7)


ORDINARY = [1, 1.5, 6.25]  # a hostile neighbour must not disturb it
HOSTILE = {
    "non-finite": ([0, NAN, 4], [1, 1, NAN], [0, NAN, NAN], [0, INF, 4], [1, -INF, INF], [0, 2, -INF]),
    "inverted": ([0, 6, 2], [1, 7, 1], [0, 5.5, 5.25], [1, 40, -40], [0, 3, 3]),
    "huge": ([0, -1e30, 1e30], [1, 0, 1e30], [0, -3e38, 3e38], [1, 1e9, -1e9], [0, -1e6, 1e6], [0, 2**31 - 1, 2**31]),
}


def _hostile(rows, ratio: int, aligned: bool):
    return lambda g: arguments(sequences(g, 2, 4, 9), tensor(*rows, ORDINARY), 3, sampling_ratio=ratio, aligned=aligned)


for _name, _rows in HOSTILE.items():
    for _aligned in (False, True):
        for _ratio in (-1, 2):
            _label = f"{_name}-{'aligned' if _aligned else 'unaligned'}-{'adaptive' if _ratio < 0 else 'sampled'}"
            _tags = "hostile quick" if _aligned and _ratio < 0 and _name == "huge" else "hostile"
            CASES.add(_label, _tags, _hostile(_rows, _ratio, _aligned))


def _scaled(scale: float, aligned: bool):  # the hidden row must stay one step high
    return lambda g: arguments(
        sequences(g, 1, 3, 8), tensor([0, 1 / scale, 6 / scale]), 2, spatial_scale=scale, aligned=aligned
    )


for _scale in (1e-30, 1 / 3, 1e30, 1e-200, 1e200):
    # Float32 segments of such scales are 0 or infinite.
    CASES.add(f"scale={_scale:.0e}", "hostile", _scaled(_scale, _scale != 1e30))


@CASES.add("large-sequence", "large")
def _(g):
    return arguments(
        sequences(g, 1, 256, 1000), segments(g, 60, 1, 8000, 16), 32, spatial_scale=1 / 8, sampling_ratio=2
    )


def _refused(**changes: object):
    def make() -> Arguments:
        return {**arguments(torch.zeros(2, 3, 9), torch.tensor([[0.0, 1, 5]]), 7, sampling_ratio=2), **changes}

    return make


def _index(value: float) -> torch.Tensor:
    return torch.tensor([[0.0, 1, 5], [value, 1, 5]])


OUTSIDE = r"segments\[{}, 0\] is batch index .*must be in \[0, {}\)"

ERRORS = (
    ErrorCase("input-rank", _refused(input=torch.zeros(2, 3, 1, 9)), r"input must be \[N, C, T\]"),
    ErrorCase("input-integer", _refused(input=torch.zeros(2, 3, 9, dtype=torch.int64)), r"input must be float16"),
    ErrorCase("segments-rank", _refused(segments=torch.zeros(3)), r"segments must be \[K, 3\]"),
    ErrorCase("segments-width", _refused(segments=torch.zeros(2, 5)), r"segments must be \[K, 3\]"),
    ErrorCase("segments-integer", _refused(segments=torch.zeros(2, 3).long()), r"segments must be float"),
    ErrorCase("segments-empty-list", _refused(segments=[]), r"segments must hold one tensor per image"),
    ErrorCase("segments-list-width", _refused(segments=[torch.zeros(1, 3)]), r"segments\[0\] must be \[L, 2\]"),
    ErrorCase("segments-list-too-long", _refused(segments=[torch.zeros(1, 2)] * 3), OUTSIDE.format(2, 2), "cpu"),
    ErrorCase("segments-none", _refused(segments=None), r"segments must be a tensor or a list of tensors"),
    ErrorCase("index-too-large", _refused(segments=_index(2)), OUTSIDE.format(1, 2), "cpu"),
    ErrorCase("index-nan", _refused(segments=_index(NAN)), OUTSIDE.format(1, 2), "cpu"),
    ErrorCase("segments-device", _refused(segments=torch.zeros(2, 3, device="meta")), r"segments must be on the same"),
    ErrorCase("output-size-zero", _refused(output_size=0), r"output_size must be positive"),
    ErrorCase("output-size-overflow", _refused(output_size=2**32), r"output_size must be at most"),
    ErrorCase("output-size-pair", _refused(output_size=(1, 7)), r"output_size must be an int"),
    ErrorCase("output-size-type", _refused(output_size=1.5), r"output_size must be an int"),
    ErrorCase("spatial-scale-zero", _refused(spatial_scale=0.0), r"spatial_scale must be positive and finite"),
    ErrorCase("spatial-scale-nan", _refused(spatial_scale=NAN), r"spatial_scale must be positive and finite"),
    ErrorCase("sampling-huge", _refused(sampling_ratio=2**40), r"sampling_ratio must be at most 65536"),
)


def _torchvision(input, segments, output_size, spatial_scale=1.0, sampling_ratio=-1, aligned=False):
    """What takes its place elsewhere: RoI Align on a map of one row."""
    import torchvision

    if not isinstance(segments, torch.Tensor):
        index = [torch.full((len(s), 1), i).to(input) for i, s in enumerate(segments)]
        segments = torch.cat([torch.cat(index), torch.cat(segments).to(input)], 1)
    k, start, end = segments.unbind(1)
    boxes = torch.stack([k, start, torch.zeros_like(k), end, torch.full_like(k, 1 / spatial_scale)], 1).to(input)
    output_size = (1, output_size)
    return torchvision.ops.roi_align(
        input.unsqueeze(2), boxes, output_size, spatial_scale, sampling_ratio, aligned
    ).squeeze(2)


SPECS = (
    OpSpec(
        name="roi_align_1d",
        function=roi_align_1d,
        dispatcher_ops=("roi_align", "roi_align_backward"),  # a sequence is a map of one row
        cases=tuple(CASES),
        errors=ERRORS,
        data=("input",),
        differentiable=("input",),
        peer={"torchvision": _torchvision},
    ),
)
