"""Facts of RoI Align over a pyramid alone; what every op promises is in test_ops.py."""

import math

import pytest
import torch
from conftest import places
from hypothesis import given
from hypothesis import strategies as st
from test_properties import box, check_pooling, run

from structops import nn, ops
from structops.nn.multiscale_roi_align import _scale
from structops.reference.multiscale_roi_align import NO_LEVEL, assign_levels
from structops.testing.recording import Recorder

torchvision = pytest.importorskip("torchvision")

SCALES = (1 / 4, 1 / 8, 1 / 16, 1 / 32)
NAN = math.nan


def pyramid(g, n=1, c=3, height=16, width=18):
    return [torch.randn(n, c, height >> i, width >> i, generator=g) for i in range(4)]


def boxes(g, n, largest=700.0):
    size = torch.empty(n, 2).uniform_(math.log(2), math.log(largest), generator=g).exp()
    corner = torch.rand(n, 2, generator=g) * 40
    return torch.cat([corner, corner + size], 1)


@pytest.mark.parametrize("canonical", [(224, 4), (100, 3), (32, 2)])
def test_levels_are_torchvisions(g, canonical):
    b = boxes(g, 20_000, largest=2000)
    wanted = torchvision.ops.poolers.LevelMapper(2, 5, *canonical)([b])
    found = assign_levels(torch.cat([torch.zeros(len(b), 1), b], 1), SCALES, *canonical, None, None)
    assert torch.equal(found, wanted)


def test_levels_at_the_canonical_sides():
    sides = torch.tensor([56.0, 112, 224, 448, 896])
    b = torch.stack([sides * 0, sides * 0, sides * 0, sides, sides], 1)
    assert assign_levels(b, SCALES, 224, 4, None, None).tolist() == [0, 1, 2, 3, 3]
    b[:, 3] *= 1 - 1e-5
    assert assign_levels(b, SCALES, 224, 4, None, None).tolist() == [0, 0, 1, 2, 3]
    assert torchvision.ops.poolers.LevelMapper(2, 5)([b[:, 1:]]).tolist() == [0, 0, 1, 2, 3]


@pytest.mark.parametrize("scales", [SCALES, (0.25, 0.0625), (1.0,), (2.0, 1.0, 0.5), (0.3, 0.11, 0.05)])
def test_level_numbers_are_torchvisions(g, scales):
    b = boxes(g, 500)
    finest, coarsest = (int(-torch.log2(torch.tensor(s)).item()) for s in (scales[0], scales[-1]))
    wanted = torchvision.ops.poolers.LevelMapper(finest, coarsest)([b])
    found = assign_levels(torch.cat([torch.zeros(len(b), 1), b], 1), scales, 224, 4, None, None)
    assert torch.equal(found, wanted.where(wanted < len(scales), NO_LEVEL))


def test_same_as_roi_align_level_by_level(place, g):
    maps = [m.to(place) for m in pyramid(g)]
    rois = torch.cat([torch.zeros(6, 1), boxes(g, 6)], 1).to(place)
    levels = torch.arange(6, device=place) % 4
    out = ops.multiscale_roi_align(maps, rois, (3, 2), SCALES, levels=levels)
    for level in range(4):
        alone = ops.roi_align(maps[level], rois[levels == level], (3, 2), SCALES[level], 2)
        torch.testing.assert_close(out[levels == level], alone, rtol=0, atol=1e-6)


def test_padding_is_zero_and_gives_no_gradient(place, g):
    maps = [m.to(place).requires_grad_() for m in pyramid(g, n=2)]
    b = torch.stack([boxes(g, 4, largest=60), boxes(g, 4, largest=60)]).to(place)
    b[1, 1:] = NAN
    options = {"canonical_scale": 30}
    out = ops.multiscale_roi_align(maps, b, 2, SCALES, valid=torch.tensor([2, 1], device=place), **options)
    assert not out[[2, 3, 5, 6, 7]].any()
    assert out[[0, 1, 4]].any((1, 2, 3)).all()
    alone = ops.multiscale_roi_align(maps, [b[0, :2], b[1, :1]], 2, SCALES, **options)
    assert torch.equal(out[[0, 1, 4]], alone)
    found = torch.autograd.grad(out.sum(), maps)
    wanted = torch.autograd.grad(alone.sum(), maps)
    assert all(map(torch.equal, found, wanted))


def test_triton_clamps_counts_that_it_cannot_refuse(g):
    kernel = pytest.importorskip("structops.triton_kernels.multiscale_roi_align").multiscale_roi_align
    device = "cuda" if torch.cuda.is_available() else "cpu"
    maps = [m.to(device) for m in pyramid(g, n=2)]
    rois = torch.cat([torch.tensor([[0.0], [0], [1], [1]]), boxes(g, 4)], 1).to(device)

    def pooled(*valid):
        return kernel(maps, rois, list(SCALES), 1, 1, 1, False, 224.0, 4, None, torch.tensor(valid, device=device))

    assert torch.equal(pooled(-2, 9), pooled(0, 2))


def test_maps_of_different_layouts(place, g):
    maps = [m.to(place) for m in pyramid(g, c=8)]
    b = [boxes(g, 6).to(place)]
    wanted = ops.multiscale_roi_align(maps, b, 2, SCALES)
    mixed = [m.contiguous(memory_format=torch.channels_last) if i % 2 else m for i, m in enumerate(maps)]
    found = ops.multiscale_roi_align(mixed, b, 2, SCALES)
    assert found.is_contiguous()
    torch.testing.assert_close(found, wanted, rtol=0, atol=1e-6)
    found = ops.multiscale_roi_align([m.contiguous(memory_format=torch.channels_last) for m in maps[:1]] + maps[1:], b,
                                     2, SCALES)  # fmt: skip
    assert found.is_contiguous(memory_format=torch.channels_last)
    torch.testing.assert_close(found, wanted, rtol=0, atol=1e-6)


def test_a_map_of_size_zero_gives_zeros(place, g):
    maps = [*pyramid(g)[:1], torch.zeros(1, 3, 0, 22)]
    rois = torch.tensor([[0, 1.0, 1, 9, 9], [0, 1, 1, 9, 9]], device=place)
    levels = torch.tensor([0, 1], device=place)
    out = ops.multiscale_roi_align([m.to(place) for m in maps], rois, 2, SCALES[:2], levels=levels)
    assert out[0].any()
    assert not out[1].any()


def test_few_calls(g):
    maps = pyramid(g)
    rois = torch.cat([torch.zeros(12, 1), boxes(g, 12)], 1)
    with Recorder() as recorder:
        ops.multiscale_roi_align(maps, rois, 7, SCALES)
    assert len(recorder.names) <= 10, recorder.names
    with Recorder() as recorder:
        ops.multiscale_roi_align(maps, rois[:, 1:].view(1, 12, 4), 7, SCALES, valid=torch.tensor([7]))
    assert len(recorder.names) <= 10, recorder.names


def test_max_is_roi_pool_level_by_level(g):
    maps = pyramid(g)
    rois = torch.cat([torch.zeros(9, 1), boxes(g, 9, largest=60)], 1)
    levels = torch.arange(9) % 4
    out = ops.multiscale_roi_align(maps, rois, (3, 2), SCALES, levels=levels, mode="max")
    for level in range(4):
        alone = ops.roi_pool(maps[level], rois[levels == level], (3, 2), SCALES[level])
        assert torch.equal(out[levels == level], alone)
    compiled = torch.compile(ops.multiscale_roi_align, fullgraph=True, backend="aot_eager")
    wanted = ops.multiscale_roi_align(maps, rois, 2, SCALES, mode="max")
    assert torch.equal(compiled(maps, rois, 2, SCALES, mode="max"), wanted)


def test_unknown_mode(g):
    with pytest.raises(ValueError, match="mode must be"):
        ops.multiscale_roi_align(pyramid(g), torch.zeros(0, 5), 2, SCALES, mode="mean")


def test_forward_mode_is_refused(g):
    maps = pyramid(g)
    rois = torch.tensor([[0.0, 0, 0, 20, 20]])
    with pytest.raises(NotImplementedError, match="forward-mode"):
        torch.func.jvp(lambda x: ops.multiscale_roi_align([x, *maps[1:]], rois, 2, SCALES), (maps[0],), (maps[0],))


def test_a_gradient_for_some_maps_only(place, g):
    maps = [m.to(place) for m in pyramid(g)]
    maps[1].requires_grad_()
    levels = torch.tensor([0, 1, 3], device=place)
    out = ops.multiscale_roi_align(maps, [boxes(g, 3, largest=60).to(place)], 2, SCALES, levels=levels)
    (grad,) = torch.autograd.grad(out.sum(), [maps[1]])
    assert grad.any()


def test_double_backward_is_the_forward(place, g):
    maps = [m.double().to(place).requires_grad_() for m in pyramid(g)]
    rois = torch.cat([torch.zeros(4, 1), boxes(g, 4)], 1).double().to(place)
    out = ops.multiscale_roi_align(maps, rois, 3, SCALES)
    v = torch.ones_like(out, requires_grad=True)
    grads = torch.autograd.grad(out, maps, v, create_graph=True)
    w = [torch.randn(m.shape, generator=g, dtype=torch.float64).to(place) for m in maps]
    (again,) = torch.autograd.grad(grads, v, w)
    torch.testing.assert_close(again, ops.multiscale_roi_align(w, rois, 3, SCALES))


# The module.


def _modules(**options):
    arguments = (["0", "1", "2", "3"], 3, 2)
    return nn.MultiScaleRoIAlign(*arguments, **options), torchvision.ops.MultiScaleRoIAlign(*arguments, **options)


@pytest.mark.parametrize("options", [{}, {"canonical_scale": 60, "canonical_level": 3}])
def test_module_is_torchvisions(g, options):
    ours, theirs = _modules(**options)
    x = dict(zip(("0", "1", "pool", "2", "3"), [*pyramid(g, 2)[:2], torch.zeros(2, 3, 1, 1), *pyramid(g, 2)[2:]],
                 strict=True))  # fmt: skip
    b = [boxes(g, 30), boxes(g, 20)]
    shapes = [(62, 70), (58, 72)]
    torch.testing.assert_close(ours(x, b, shapes), theirs(x, b, shapes), rtol=0, atol=1e-5)
    assert repr(ours) == repr(theirs)
    assert ours.output_size == theirs.output_size
    assert ours.state_dict() == theirs.state_dict() == {}


def test_module_with_a_level_left_out(g):
    # torchvision's own example: where the scales skip a level, a box on one past the maps gives zeros
    ours, theirs = (m(["feat1", "feat3"], 3, 2) for m in (nn.MultiScaleRoIAlign, torchvision.ops.MultiScaleRoIAlign))
    x = {"feat1": torch.rand(1, 5, 64, 64), "feat2": torch.rand(1, 5, 32, 32), "feat3": torch.rand(1, 5, 16, 16)}
    b = boxes(g, 40, largest=400)
    torch.testing.assert_close(ours(x, [b], [(512, 512)]), theirs(x, [b], [(512, 512)]), rtol=0, atol=1e-5)


def test_scales_are_torchvisions():
    for image in (1, 7, 64, 333, 1333):
        for size in range(1, 2 * image, max(image // 20, 1)):
            wanted = torchvision.ops.poolers._infer_scale(torch.empty(1, 1, size, 1), [image, 1])
            assert _scale(size, image) == wanted, (size, image)


def test_module_compiles_and_exports(g):
    module, _ = _modules()
    x = dict(zip("0123", pyramid(g, 2), strict=True))
    b, shapes = [boxes(g, 5), boxes(g, 3)], [(64, 72), (60, 70)]
    wanted = module(x, b, shapes)
    assert torch.equal(torch.compile(module, fullgraph=True, backend="aot_eager")(x, b, shapes), wanted)
    rows = torch.export.Dim.AUTO
    dynamic = ({name: {} for name in x}, [{0: rows}, {0: rows}], [(None, None), (None, None)])
    program = torch.export.export(module, (x, b, shapes), dynamic_shapes=dynamic)
    b = [b[0][:4], torch.cat([b[1], b[1]])]
    assert torch.equal(program.module()(x, b, shapes), module(x, b, shapes))


def test_module_wants_image_shapes(g):
    with pytest.raises(ValueError, match="image_shapes"):
        _modules()[0](dict(zip("0123", pyramid(g), strict=True)), [boxes(g, 2)], [])


# Whatever the numbers.


@pytest.mark.parametrize(("device", "backend"), [p for p in places() if p[1] != "reference"], ids=str)
def test_property(device, backend):
    @given(
        rows=st.lists(st.tuples(st.integers(0, 1), box), min_size=1, max_size=6),
        size=st.tuples(st.integers(1, 9), st.integers(1, 9)),
        pooled=st.tuples(st.integers(1, 3), st.integers(1, 3)),
        scales=st.sampled_from([(1.0, 0.5), (0.5, 0.25, 0.125), (1 / 3, 1e-3), (4.0, 2.0, 1.0, 0.5)]),
        sampling_ratio=st.integers(-1, 3),
        aligned=st.booleans(),
        canonical=st.tuples(st.sampled_from([1e-3, 4.0, 224.0, 1e20]), st.integers(-3, 6)),
        dtype=st.sampled_from([torch.float32, torch.float64]),
    )
    def property_(rows, size, pooled, scales, sampling_ratio, aligned, canonical, dtype):
        g = torch.Generator().manual_seed(size[0] * 10 + size[1])
        shapes = [(2, 3, max(size[0] >> i, 1), max(size[1] >> i, 1)) for i in range(len(scales))]
        maps = [torch.randn(s, generator=g, dtype=torch.float64).to(dtype) for s in shapes]
        rois = torch.tensor([[index, *coordinates] for index, coordinates in rows], dtype=dtype)
        options = (pooled, scales, sampling_ratio, aligned, *canonical)
        check_pooling(lambda *given: ops.multiscale_roi_align(*given, *options), maps, rois, device, backend)

    run(property_, device, backend)
