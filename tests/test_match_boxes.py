"""Facts of match_boxes alone; what every op promises is in test_ops.py."""

import math
import subprocess
import sys

import pytest
import torch

import structops
from structops import ops, testing
from structops.testing.cases.match_boxes import around, torchvision_matcher
from structops.testing.workloads.match_boxes import RETINANET, RPN, pyramid_anchors

RULES = [(h, low, r) for h, low in ((0.7, 0.3), (0.5, 0.4), (0.5, 0.5)) for r in (False, True)]


def truths(n, g, width=1344, height=800):
    """Boxes [n, 4] of 8 to 400 pixels in an image."""
    size = 8 + 392 * torch.rand(n, 2, generator=g) ** 2
    corner = torch.rand(n, 2, generator=g) * (torch.tensor([width, height]) - size)
    return torch.cat([corner, corner + size], 1)


@pytest.fixture
def one_thread():
    """Of thousands of tiny operations; on a busy machine threads spend minutes waiting for one another."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


@pytest.mark.usefixtures("one_thread")
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_number_for_number_with_torchvision(dtype, g):
    pytest.importorskip("torchvision", reason="torchvision is not installed")
    for draw in range(1500):
        m, n = (int(torch.randint(1, high, (), generator=g)) for high in (12, 80))
        gt = truths(m, g, 410, 420).to(dtype)
        anchors = around(g, gt.double(), n).to(dtype)
        if draw % 2:  # on a coarse grid: ties between ground truths, between anchors, and with the thresholds
            gt, anchors = (torch.round(t / 40) * 40 for t in (gt, anchors))
        # Areas of 0 and less make 0 / 0, which is a match in torchvision.
        for boxes in (gt, anchors):
            boxes[:, 2:] = torch.maximum(boxes[:, 2:], boxes[:, :2] + 40)
        rule = RULES[draw % len(RULES)]
        for got, wanted in zip(
            ops.match_boxes(gt, anchors, *rule), torchvision_matcher(gt, anchors, *rule), strict=True
        ):
            assert torch.equal(got, wanted), (draw, rule)


@pytest.mark.parametrize("detector", [RPN, RETINANET], ids=lambda d: d.title)
def test_anchors_of_a_pyramid(detector, g):
    pytest.importorskip("torchvision", reason="torchvision is not installed")
    anchors, gt = pyramid_anchors(detector), truths(30, g)
    for rule in (detector.rule, (0.5, 0.4, False)):
        for got, wanted in zip(
            ops.match_boxes(gt, anchors, *rule), torchvision_matcher(gt, anchors, *rule), strict=True
        ):
            assert torch.equal(got, wanted)
    assert len(pyramid_anchors(RPN)) == 268_569  # what benchmarks and documents say


@pytest.mark.parametrize("low_quality", [False, True])
def test_any_number_of_threads(low_quality, g):
    """Where there is enough to share: the cases are too small for a second thread."""
    anchors, gt = pyramid_anchors(RPN), truths(300, g)
    before = torch.get_num_threads()
    try:
        found = []
        for threads in (1, 2, 3):
            torch.set_num_threads(threads)
            found.append(ops.match_boxes(gt, anchors, 0.7, 0.3, low_quality))
    finally:
        torch.set_num_threads(before)
    for more in found[1:]:
        assert all(torch.equal(a, b) for a, b in zip(found[0], more, strict=True))


def test_a_batch_is_each_image_by_itself(place, g):
    slow = testing.interpreted(structops.current_backend(), place)
    images, m, n = (3, 4, 30) if slow else (5, 20, 3000)
    gt = torch.stack([truths(m, g) for _ in range(images)]).to(place)
    own = torch.stack([around(g, t.double().cpu(), n).float() for t in gt]).to(place)
    valid = torch.arange(images, device=place)
    for anchors in (own, own[0]):
        together = ops.match_boxes(gt, anchors, 0.6, 0.4, True, valid=valid)
        for i in range(images):
            alone = ops.match_boxes(gt[i, :i], own[i] if anchors.dim() == 3 else anchors, 0.6, 0.4, True)
            assert all(torch.equal(a[i], b) for a, b in zip(together, alone, strict=True))


def test_without_ground_truths_all_is_background(place):
    anchors = torch.rand(7, 4, device=place)
    for rule in ((0.7, 0.3, True), (-1.0, -2.0, False)):
        matches, ious = ops.match_boxes(torch.empty(0, 4, device=place), anchors, *rule)
        assert matches.tolist() == [-1] * 7
        assert ious.tolist() == [0.0] * 7


def test_thresholds_are_rounded_to_the_type_of_the_iou(place):
    # 7 / 10 in float32 is less than 0.7, and equal to it once that is float32 too.
    gt, anchors = torch.tensor([[0.0, 0, 10, 1]], device=place), torch.tensor([[0.0, 0, 7, 1]], device=place)
    assert ops.match_boxes(gt, anchors, 0.7, 0.7)[0].tolist() == [0]
    assert ops.match_boxes(gt, anchors, math.nextafter(0.7, 1), 0.7)[0].tolist() == [0]
    assert ops.match_boxes(gt.double(), anchors.double(), math.nextafter(0.7, 1), 0.7)[0].tolist() == [-2]


def test_restored_to_its_own_best(place):
    # The small truth's best anchor has a better IoU with the large one, and goes there.
    gt = torch.tensor([[0.0, 0, 10, 10], [0, 0, 4, 4]], device=place)
    anchors = torch.tensor([[0.0, 0, 8, 8], [50, 50, 60, 60]], device=place)
    assert ops.match_boxes(gt, anchors, 0.9, 0.9, True)[0].tolist() == [0, -1]
    far = torch.tensor([[200.0, 200, 210, 210]], device=place)  # meets nothing: all anchors attain its best, 0
    assert ops.match_boxes(torch.cat([gt, far]), anchors, 0.9, 0.9, True)[0].tolist() == [0, 0]


def test_nan_matches_nothing(place):
    gt = torch.tensor([[math.nan, 0, 10, 10], [0, 0, 10, 10]], device=place)
    anchors = torch.tensor([[0.0, 0, 10, 10], [0, 0, 10, math.nan], [50, 50, 60, 60]], device=place)
    matches, ious = ops.match_boxes(gt, anchors, 0.5, 0.4, True)
    assert matches.tolist() == [1, -1, -1]
    assert ious.tolist() == [1.0, 0.0, 0.0]


PEAK = """
import torch
from structops import ops
from structops.testing.cases.match_boxes import torchvision_matcher
from structops.testing.workloads.match_boxes import RPN, pyramid_anchors

def peak(function):
    with open("/proc/self/clear_refs", "w") as file:
        file.write("5")  # the peak begins anew at what is resident
    def kilobytes(name):
        return next(int(line.split()[1]) for line in open("/proc/self/status") if line.startswith(name))
    before = kilobytes("VmRSS")
    function()
    return kilobytes("VmHWM") - before

anchors, gt = pyramid_anchors(RPN), torch.rand(50, 4) * 400 + torch.tensor([0, 0, 400, 400])
few = anchors[:1000]
ops.match_boxes(gt, few, *RPN.rule), torchvision_matcher(gt, few, *RPN.rule)  # libraries load, threads start
print(peak(lambda: ops.match_boxes(gt, anchors, *RPN.rule)), peak(lambda: torchvision_matcher(gt, anchors, *RPN.rule)))
"""


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="reads the peak of resident memory from /proc")
def test_peak_memory():
    """In a process of its own, where no memory freed earlier hides what a call needs."""
    pytest.importorskip("torchvision", reason="torchvision is not installed")
    done = subprocess.run([sys.executable, "-c", PEAK], capture_output=True, text=True, check=True)
    ours, theirs = map(int, done.stdout.split())
    assert ours < theirs / 20
    assert ours < 268_569 * 12 / 1024 + 4096  # the results, and little more
