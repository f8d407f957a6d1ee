"""structops.patch: torchvision's detectors find the same."""

from __future__ import annotations

import pytest
import torch
from torchvision.models import detection

import structops


def detector(name: str, **options) -> torch.nn.Module:
    """Random weights that still give scores of every size, so that no order hangs on ties or on rounding."""
    torch.manual_seed(0)
    model = getattr(detection, name)(weights=None, weights_backbone=None, **options)
    if "mobilenet" in name:  # its untrained activations die out, unless batch norm knows their statistics
        for module in model.modules():
            if isinstance(module, torch.nn.BatchNorm2d):
                module.momentum = 1.0
        with torch.no_grad():
            model.backbone.train()(torch.randn(2, 3, 96, 128))
        classifiers = [m for n, m in model.named_modules() if n.endswith("cls_score") or "classification_head" in n]
        for module in classifiers:
            if isinstance(module, torch.nn.Linear | torch.nn.Conv2d):
                module.weight.data *= 4
    return model.eval()


SMALL = {"min_size": 96, "max_size": 128}
FEW = {"box_detections_per_img": 20, "rpn_post_nms_top_n_test": 200}
DETECTORS = {
    "fasterrcnn_mobilenet_v3_large_fpn": {**SMALL, **FEW},
    "maskrcnn_resnet50_fpn": {**SMALL, **FEW},
    "keypointrcnn_resnet50_fpn": {**SMALL, **FEW, "box_score_thresh": 0.0},
    "retinanet_resnet50_fpn": {**SMALL, "score_thresh": 0.0},
    "fcos_resnet50_fpn": {**SMALL, "score_thresh": 0.0},
    "ssdlite320_mobilenet_v3_large": {},
}


class TestDetectors:
    @pytest.mark.parametrize("name", DETECTORS)
    def test_same_detections(self, ran, name):
        model = detector(name, **DETECTORS[name])
        images = [torch.rand(3, 96, 128), torch.rand(3, 112, 90)]
        with torch.no_grad():
            expected = model(images)
            assert ran == []
            with structops.patch("torchvision"):
                found = model(images)
        assert "select_detections" in ran
        # MobileNet's pyramid has two levels of one scale, which torchvision goes through one by one.
        pooling = {"fasterrcnn_mobilenet_v3_large_fpn": {"roi_align"}}.get(name, {"multiscale_roi_align"})
        # A region proposal network needs no anchors in memory.
        if "rcnn" in name:
            rest = {"generate_proposals"} | pooling
        else:
            rest = {"default_boxes" if "ssd" in name else "generate_anchors"}
        if "keypoint" in name:
            rest |= {"heatmaps_to_keypoints"}
        if "mask" in name:
            rest |= {"paste_masks"}
        assert set(ran) == {"select_detections"} | rest
        assert sum(len(theirs["boxes"]) for theirs in expected) >= 20
        for theirs, ours in zip(expected, found, strict=True):
            assert torch.equal(ours.pop("labels"), theirs.pop("labels"))
            for key in theirs:
                # torchvision's own fp32 coordinates are off by 3e-5 of the map's scale; ours are not.
                torch.testing.assert_close(ours[key], theirs[key], atol=2e-3, rtol=1e-3)

    def test_training_step(self, ran):
        model = detector("maskrcnn_resnet50_fpn", **SMALL, num_classes=5).train()
        images = [torch.rand(3, 96, 128), torch.rand(3, 112, 90)]
        targets = [
            {
                "boxes": torch.tensor([[10.0, 12, 60, 70], [30, 20, 80, 90]]),
                "labels": torch.tensor([1, 3]),
                "masks": torch.ones(2, *image.shape[1:], dtype=torch.uint8),
            }
            for image in images
        ]

        def step():
            torch.manual_seed(1)  # proposals are sampled
            model.zero_grad()
            losses = model(images, targets)
            sum(losses.values()).backward()
            gradients = {n: p.grad.clone() for n, p in model.named_parameters() if p.grad is not None}
            return {k: v.detach() for k, v in losses.items()}, gradients

        state = {k: v.clone() for k, v in model.state_dict().items()}
        losses, gradients = step()
        model.load_state_dict(state)  # batch norm statistics
        with structops.patch():
            patched_losses, patched_gradients = step()
        assert {"generate_proposals", "multiscale_roi_align"} <= set(ran)
        torch.testing.assert_close(patched_losses, losses, atol=1e-4, rtol=1e-3)
        assert gradients.keys() == patched_gradients.keys()
        for key, theirs in gradients.items():
            error = (patched_gradients[key] - theirs).norm() / theirs.norm().clamp(min=1e-6)
            assert error < 1e-2, key
