"""Models that hold torchvision's functions are pickled whole: before, under and after the patch, and across it."""

from __future__ import annotations

import copy
import pickle
import subprocess
import sys

import pytest
import torch
import torchvision
from torchvision.models.detection.anchor_utils import AnchorGenerator
from torchvision.models.detection.faster_rcnn import FasterRCNN, FastRCNNPredictor, TwoMLPHead
from torchvision.ops import MultiScaleRoIAlign
from torchvision.ops import boxes as box_ops

import structops
from structops.integrations import torchvision as integration

LOADED_ELSEWHERE = """
import pickle, sys
rpn = pickle.load(open(sys.argv[1], "rb"))
assert "structops" not in sys.modules
assert rpn.box_similarity.__module__ == "torchvision.ops.boxes"
"""


def _model():
    """Small, of torchvision's own classes around a single convolution."""
    torch.manual_seed(0)
    backbone = torch.nn.Conv2d(3, 8, 7, stride=8, padding=3)
    backbone.out_channels = 8
    return FasterRCNN(
        backbone,
        min_size=60,
        max_size=80,
        rpn_anchor_generator=AnchorGenerator(((16, 32),), ((0.5, 1.0),)),
        box_roi_pool=MultiScaleRoIAlign(["0"], 7, 2),
        box_head=TwoMLPHead(8 * 7 * 7, 16),
        box_predictor=FastRCNNPredictor(16, 3),
        box_score_thresh=0.0,
    ).eval()


@torch.inference_mode()
def _detect(model):
    return model([torch.linspace(0, 1, 3 * 60 * 80).view(3, 60, 80)])[0]


@pytest.mark.parametrize("made_under_the_patch", [False, True])
def test_a_model_is_pickled_under_the_patch_and_read_before_and_after_its_end(made_under_the_patch):
    model = None if made_under_the_patch else _model()
    with structops.patch("torchvision"):
        model = model or _model()
        written = pickle.dumps(model)
        found = _detect(pickle.loads(written))
        torch.testing.assert_close(found, _detect(copy.deepcopy(model)), rtol=0, atol=0)
    read = pickle.loads(written)
    assert read.rpn.box_similarity is box_ops.box_iou
    assert read.roi_heads.box_similarity is box_ops.box_iou
    torch.testing.assert_close(_detect(read), found)
    pickle.loads(pickle.dumps(model))


def test_what_was_written_under_the_patch_is_read_without_structops(tmp_path):
    rpn = _model().rpn
    with structops.patch("torchvision"):
        (tmp_path / "rpn.pickle").write_bytes(pickle.dumps(rpn))
    subprocess.run([sys.executable, "-c", LOADED_ELSEWHERE, str(tmp_path / "rpn.pickle")], check=True, cwd=tmp_path)


@pytest.mark.parametrize("pair", integration.functions(), ids=lambda pair: pair[0].__name__)
def test_functions_themselves_are_pickled(pair):
    original, mine = pair
    for when in ("before", "under", "after"):
        if when == "under":
            structops.patch("torchvision")
        for function in (original, mine):
            assert pickle.loads(pickle.dumps(function)) is function, when
        if when == "under":
            structops.unpatch("torchvision")
    assert original.__module__.startswith(torchvision.__name__)
