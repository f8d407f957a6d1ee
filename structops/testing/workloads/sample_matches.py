"""Sampling as detectors train with it: 256 of a pyramid's anchors (RPN), 512 of the proposals (box head)."""

from __future__ import annotations

import functools
import importlib
from dataclasses import dataclass
from typing import Any

import torch

from structops import ops
from structops.reference import sample_matches as definition
from structops.testing.workloads import Cost, Trial, Workload, generator, torchvision_ops

PYRAMID = 268_569


def torchvision_sampler(num_samples: int, fraction: float) -> Any:
    if torchvision_ops() is None:
        return None
    utils = importlib.import_module("torchvision.models.detection._utils")
    return utils.BalancedPositiveNegativeSampler(num_samples, fraction)


def cost(matches: torch.Tensor, num_samples: int) -> Cost:
    """Matches read once, indices written once. No floating-point operations."""
    return Cost(8 * matches.numel() + 16 * num_samples * matches.shape[0], 0)


@dataclass(frozen=True)
class Sampling:
    images: int
    anchors: int
    positive: float  # share of the anchors; as many are left out
    num_samples: int = 256
    fraction: float = 0.5


def make(sampling: Sampling, name: str, device: torch.device) -> Trial:
    images, anchors, positive = sampling.images, sampling.anchors, sampling.positive
    num_samples, fraction = sampling.num_samples, sampling.fraction
    u = torch.rand(images, anchors, generator=generator(name))
    host = torch.where(u < positive, 3, torch.where(u < 2 * positive, -2, -1))
    matches, labels = host.to(device), [*(host + 1).clamp(max=1).to(device)]
    seed = torch.tensor(1, device=device)
    sampler = torchvision_sampler(num_samples, fraction)

    def run() -> Any:
        return ops.sample_matches(matches, num_samples, fraction, seed=seed)

    def peer() -> Any:
        return sampler(labels)

    def check(result: Any, peer_result: Any) -> None:
        wanted = definition.sample_matches(host, num_samples, fraction, torch.tensor(1))
        assert all(torch.equal(a.cpu(), b) for a, b in zip(result, wanted, strict=True)), "differs from the definition"
        if peer_result is not None:  # other anchors, but as many
            counts = [[int(mask[i].sum()) for mask in peer_result] for i in range(images)]
            assert result[2].tolist() == counts, "torchvision samples other numbers of anchors"

    peer_name = "torchvision's sampler, which returns masks"
    return Trial(run, sampler and peer, peer_name, check, lambda result: cost(host, num_samples))


def _workload(name: str, title: str, sampling: Sampling, kind: str = "forward", **rest: Any) -> Workload:
    draw = functools.partial(make, sampling, f"sample_matches-{name}")
    return Workload("sample_matches", name, title, kind, torch.float32, draw, **rest)


def _point(anchors: int) -> Workload:
    place = {"series": "anchors", "size": anchors, "quick": anchors == 3000}
    return _workload(f"sweep-{anchors}", f"sweep {anchors}", Sampling(1, anchors, 0.01), "sweep", **place)


WORKLOADS = (
    _workload("rpn", "RPN, 256 of 268,569", Sampling(1, PYRAMID, 0.0003), quick=True),
    _workload("rpn-4-images", "RPN, 256 of 268,569, 4 images", Sampling(4, PYRAMID, 0.0003)),
    _workload("box-head", "box head, 512 of 2050, 2 images", Sampling(2, 2050, 0.1, 512, 0.25), quick=True),
    *(_point(n) for n in (1000, 3000, 10_000, 30_000, 100_000, 300_000)),
)
