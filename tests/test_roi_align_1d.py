"""Facts of RoI Align along time alone; what every op promises is in test_ops.py."""

import pytest
import torch

from structops import ops, testing
from structops.reference.roi_align_1d import roi_align_1d as definition
from structops.testing.recording import Recorder
from structops.testing.run import incoming_gradient
from structops.testing.tolerances import distance, scale_of

SPEC = testing.specs()["roi_align_1d"]


@pytest.mark.parametrize("name", [case.name for case in SPEC.cases])
def test_one_row_of_a_map_is_a_sequence(name):
    """What the generic checks compare with is RoI Align's definition on a map of one row; this one knows no rows."""
    arguments = SPEC.case(name).draw()
    if isinstance(arguments["segments"], list):
        arguments["segments"] = [s.double() for s in arguments["segments"]]
    x = arguments.pop("input").requires_grad_()
    out = ops.roi_align_1d(x, **arguments)
    segments = arguments.pop("segments")
    if isinstance(segments, list):
        index = [torch.full((len(s), 1), i, dtype=s.dtype) for i, s in enumerate(segments)]
        segments = torch.cat([torch.cat(index), torch.cat(segments)], 1)
    wanted = definition(x, segments, **arguments)
    assert distance(out, wanted.detach(), scale_of(x), torch.float64)[1] is None
    grad = incoming_gradient(wanted.detach())
    # A segment that is not finite gives no gradient; autograd of a NaN constant gives none either.
    (got,), (want,) = torch.autograd.grad(out, x, grad), torch.autograd.grad(wanted, x, grad, allow_unused=True)
    want = torch.zeros_like(x) if want is None else want
    assert distance(got, want, max(scale_of(grad), scale_of(want)), torch.float64)[1] is None


@pytest.mark.parametrize("aligned", [False, True])
@pytest.mark.parametrize("sampling_ratio", [-1, 1, 3, 49])
@pytest.mark.parametrize("scale", [1e-40, 1 / 8, 1 / 3, 1.0, 7.3, 1e40])
def test_a_constant_stays_a_constant(place, scale, sampling_ratio, aligned):
    x = torch.full((1, 5, 20), 2.5, device=place)
    segments = torch.tensor([[0, 1.3, 17.9], [0, 3.2, 4.3]], dtype=torch.float64, device=place)
    segments[:, 1:] /= scale
    out = ops.roi_align_1d(x, segments, 4, scale, sampling_ratio, aligned)
    torch.testing.assert_close(out, torch.full_like(out, 2.5))


def test_a_ramp_gives_bin_centres(place):
    x = torch.arange(32, dtype=torch.float64, device=place).expand(1, 2, 32)
    out = ops.roi_align_1d(x, torch.tensor([[0, 4.0, 20]], device=place), 4, sampling_ratio=2)
    torch.testing.assert_close(out[0, 0].cpu(), torch.tensor([6.0, 10, 14, 18], dtype=torch.float64))


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float32])
def test_sequences_with_channels_fastest(place, dtype, g):
    """``[N, T, C]`` transposed is taken as it lies, and the result lies likewise; so do gradients."""
    x = torch.randn(2, 9, 8, generator=g).to(place, dtype)
    segments = torch.tensor([[0, 1.5, 6], [1, 0, 8]], device=place)
    plain, fast = x.transpose(1, 2).contiguous().requires_grad_(), x.transpose(1, 2).requires_grad_()
    results = [ops.roi_align_1d(v, segments, 4, sampling_ratio=2) for v in (plain, fast)]
    assert results[0].stride() == (32, 4, 1)
    assert results[1].stride() == (32, 1, 8)
    torch.testing.assert_close(*results, rtol=0, atol=0)
    grads = [torch.autograd.grad(out, v, out.detach())[0] for out, v in zip(results, (plain, fast), strict=True)]
    torch.testing.assert_close(*grads)


def test_dense_sequences_are_not_copied(g):
    """The dispatcher op gets the caller's memory, in both layouts."""
    for x in (torch.randn(2, 8, 9, generator=g), torch.randn(2, 9, 8, generator=g).transpose(1, 2)):
        with Recorder() as recorder:
            ops.roi_align_1d(x, torch.tensor([[0, 1.5, 6]]), 4)
        ((_, arguments, _),) = recorder.own
        assert arguments[0].data_ptr() == x.data_ptr()


def test_list_of_segments_is_segments_with_an_index(place, g):
    x = torch.randn(3, 4, 9, generator=g).to(place)
    per_video = [torch.rand(n, 2, generator=g).to(place) * 9 for n in (2, 0, 3)]
    index = torch.tensor([0.0, 0, 2, 2, 2], device=place)[:, None]
    together = torch.cat([index, torch.cat(per_video)], 1)
    assert torch.equal(ops.roi_align_1d(x, per_video, 3), ops.roi_align_1d(x, together, 3))


def test_forward_mode_is_refused(place):
    x, segments = torch.rand(1, 1, 4, device=place), torch.tensor([[0.0, 0, 2]], device=place)
    with pytest.raises(NotImplementedError, match="forward-mode"):
        torch.func.jvp(lambda x: ops.roi_align_1d(x, segments, 2), (x,), (x,))
