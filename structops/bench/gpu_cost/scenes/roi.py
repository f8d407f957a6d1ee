"""The RoI family beside torchvision's kernels."""

from __future__ import annotations

import functools
from collections.abc import Callable
from dataclasses import replace

import torch

from structops.bench.gpu_cost import geometry, kernels
from structops.bench.gpu_cost.calls import calls_of
from structops.bench.gpu_cost.kernels import TYPES, Call
from structops.bench.gpu_cost.peers import peer
from structops.bench.gpu_cost.scenes import FULL, HALF, Draw, Peer, Scene
from structops.testing.workloads import (
    Cost,
    Trial,
    generator,
    multiscale_roi_align,
    ps_roi_align,
    ps_roi_pool,
    roi_align,
    roi_pool,
)


def _pyramids() -> list[Scene]:
    box, mask = multiscale_roi_align.BOX_HEAD, multiscale_roi_align.MASK_HEAD
    training = multiscale_roi_align.TRAINING
    return [
        _pyramid(box, FULL, True, False),
        _pyramid(box, HALF, True, False),
        _pyramid(box, FULL, False, False),
        _pyramid(mask, FULL, True, False),
        _pyramid(mask, HALF, True, False),
        _pyramid(training, FULL, True, False),
        _pyramid(training, HALF, True, False),
        _pyramid(training, FULL, True, True),
        _pyramid(training, HALF, True, True),
        _pyramid(training, FULL, False, True),
    ]


def _aligns() -> list[Scene]:
    return [
        _align(roi_align.BOX_HEAD, FULL, True, False),
        _align(roi_align.BOX_HEAD, HALF, True, False),
        _align(roi_align.BOX_HEAD, FULL, False, False),
        _align(roi_align.C4_HEAD, FULL, True, False),
        _align(roi_align.TRAINING, FULL, True, True),
        _align(roi_align.TRAINING, HALF, True, True),
    ]


def _pools() -> list[Scene]:
    return [
        _pool(roi_align.BOX_HEAD, FULL, True, "forward"),
        _pool(roi_align.BOX_HEAD, HALF, True, "forward"),
        _pool(roi_align.BOX_HEAD, FULL, False, "forward"),
        _pool(roi_pool.TWO_IMAGES, FULL, True, "training"),
        _pool(roi_pool.TWO_IMAGES, FULL, True, "backward"),
        _pool(roi_pool.TWO_IMAGES, HALF, True, "backward"),
    ]


def _position_sensitives(pooling: ps_roi_align.Pooling) -> list[Scene]:
    return [
        _position_sensitive(pooling, ps_roi_align.SCORES, FULL, False, False),
        _position_sensitive(pooling, ps_roi_align.SCORES, HALF, False, False),
        _position_sensitive(pooling, ps_roi_align.SCORES, FULL, True, False),
        _position_sensitive(pooling, ps_roi_align.SCORES, FULL, False, True),
    ]


def _title(shape, kind: str, dtype: torch.dtype, channels_last: bool) -> str:
    words = [shape.title, "" if kind == "forward" else kind]
    return f"{' '.join(word for word in words if word)}, {roi_align.SHORT[dtype]} {'NHWC' if channels_last else 'NCHW'}"


def _forward_kernel(call: Call, maps: str) -> str:
    t = TYPES[call.dtype]
    return (
        f"roi_align_nhwc_kernel<{t}, {call.pack}, {maps}>"
        if call.channels_last
        else f"roi_align_nchw_kernel<{t}, {maps}>"
    )


def _pyramid(shape: multiscale_roi_align.Shape, dtype: torch.dtype, last: bool, backward: bool) -> Scene:
    boxes = shape.boxes(generator(shape.title))
    index = torch.arange(shape.images).repeat_interleave(shape.rois // shape.images)
    rois = torch.cat([index[:, None].float(), torch.cat(boxes)], 1)
    maps = geometry.pyramid_maps(shape, rois)
    call = Call(shape.channels, dtype, last)
    pixels = shape.images * sum(m.height * m.width for m in maps) * shape.channels
    outputs = shape.rois * shape.pooled**2 * shape.channels

    def cost(itemsize: int) -> Cost:
        both = multiscale_roi_align.cost(shape, rois, itemsize, True)
        forward = multiscale_roi_align.cost(shape, rois, itemsize, False)
        return Cost(both.bytes - forward.bytes, both.flops - forward.flops) if backward else forward

    name = f"roi_align_{'backward' if backward else 'forward'}_kernel_impl<float>"

    return Scene(
        "multiscale_roi_align",
        _title(shape, "backward" if backward else "forward", dtype, last),
        pixels if backward else outputs,
        functools.partial(cost, dtype.itemsize),
        lambda: (
            kernels.align_backward(maps, call, "multiscale_roi_bounds_kernel")
            if backward
            else [kernels.tabled_forward(maps, call, _forward_kernel(call, "Pyramid"), True)]
        ),
        Peer(
            functools.partial(cost, 4),
            lambda: peer(maps, shape.channels, name),
            # Clears the gradients; forward: clears the result, and writes each level's RoIs into it.
            4 * (pixels if backward else 3 * outputs),
            functools.partial(_pyramid_calls, shape, backward),
        ),
    )


def _align(shape: roi_align.Shape, dtype: torch.dtype, last: bool, backward: bool) -> Scene:
    rois = shape.rois_tensor(generator(shape.title))
    m, call = geometry.align_map(shape, rois), Call(shape.channels, dtype, last)
    pixels = shape.images * shape.height * shape.width * shape.channels
    outputs = shape.rois * shape.pooled**2 * shape.channels
    name = f"roi_align_{'backward' if backward else 'forward'}_kernel_impl<float>"

    t = TYPES[dtype]
    return Scene(
        "roi_align",
        _title(shape, "backward" if backward else "forward", dtype, last),
        pixels if backward else outputs,
        lambda: roi_align.cost(shape, rois, dtype.itemsize, backward),
        lambda: (
            kernels.align_backward([m], call, "roi_bounds_kernel")
            if backward
            else [kernels.tabled_forward([m], call, _forward_kernel(call, f"OneMap<{t}> "), True)]
        ),
        Peer(
            lambda: roi_align.cost(shape, rois, 4, backward),
            lambda: peer([m], shape.channels, name),
            4 * (pixels if backward else outputs),
            functools.partial(_peer_calls, roi_align.make, replace(shape, channels=8), backward),
        ),
    )


def _pool(shape: roi_align.Shape, dtype: torch.dtype, last: bool, kind: str) -> Scene:
    rois = shape.rois_tensor(generator(shape.title))
    m, call = geometry.pool_map(shape, rois), Call(shape.channels, dtype, last)
    pixels = shape.images * shape.height * shape.width * shape.channels
    outputs = shape.rois * shape.pooled**2 * shape.channels
    backward, argmax, t = kind == "backward", "true" if kind == "training" else "false", TYPES[dtype]
    name = f"roi_pool_nhwc_kernel<{t}, {call.pack}, {argmax}>" if last else f"roi_pool_nchw_kernel<{t}, {argmax}>"
    peer_name = f"roi_pool_{'backward' if backward else 'forward'}_kernel_impl<float>"

    return Scene(
        "roi_pool",
        _title(shape, kind, dtype, last),
        pixels if backward else outputs,
        lambda: roi_pool.cost(shape, rois, dtype.itemsize, kind),
        lambda: kernels.pool_backward(m, call) if backward else [kernels.tabled_forward([m], call, name, False)],
        Peer(
            # Its forward writes the indices whether anybody wants them or not.
            lambda: roi_pool.cost(shape, rois, 4, "backward" if backward else "training"),
            lambda: peer([m], shape.channels, peer_name),
            4 * (pixels if backward else 2 * outputs),
            functools.partial(_peer_calls, roi_pool.make, replace(shape, channels=8), kind),
        ),
    )


def _position_sensitive(
    pooling: ps_roi_align.Pooling, shape: ps_roi_align.Shape, dtype: torch.dtype, last: bool, backward: bool
) -> Scene:
    rois = shape.rois_tensor(generator(shape.title))
    m, call = geometry.ps_map(pooling, shape, rois), Call(shape.channels, dtype, last)
    pixels, outputs = shape.height * shape.width * shape.channels, shape.rois * shape.channels
    name = f"{pooling.name}_{'backward' if backward else 'forward'}_kernel_impl<float>"
    make = functools.partial(ps_roi_align.make, pooling)

    return Scene(
        pooling.name,
        _title(shape, "backward" if backward else "forward", dtype, last),
        pixels if backward else outputs,
        lambda: ps_roi_align.cost(pooling, shape, rois, dtype.itemsize, backward),
        lambda: kernels.ps_backward(m, call) if backward else kernels.ps_forward(m, call),
        Peer(
            lambda: ps_roi_align.cost(pooling, shape, rois, 4, backward),
            lambda: peer([m], shape.channels, name),
            # The channel of each output is written and read; what is written is cleared first.
            4 * (pixels + outputs if backward else 3 * outputs),
            functools.partial(_peer_calls, make, replace(shape, classes=1), backward),
        ),
    )


@functools.cache
def _peer_calls(make: Callable[..., Trial], shape: object, kind: str | bool) -> tuple[int, int]:
    """Of the peer of a workload of this shape."""
    peer = make(shape, torch.float32, "nchw", kind, "launches", torch.device("cpu")).peer
    assert peer is not None  # whose machine code there is
    return calls_of(peer)


def _pyramid_calls(shape: multiscale_roi_align.Shape, backward: bool) -> tuple[int, int]:
    """Of torchvision's ``MultiScaleRoIAlign``, whose workload's step is forward and backward."""
    small = replace(shape, channels=8)
    forward, step = (_peer_calls(multiscale_roi_align.make, small, step) for step in (False, True))
    return (step[0] - forward[0], step[1] - forward[1]) if backward else forward


TITLE = "RoI operations"
SCENES: dict[str, Draw] = {
    "multiscale_roi_align": _pyramids,
    "roi_align": _aligns,
    "roi_pool": _pools,
    "ps_roi_align": functools.partial(_position_sensitives, ps_roi_align.ALIGN),
    "ps_roi_pool": functools.partial(_position_sensitives, ps_roi_pool.POOL),
}
