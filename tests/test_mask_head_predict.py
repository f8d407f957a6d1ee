"""The mask head on torchvision's own layers, and what it must not write."""

import pytest
import torch

from structops import ops


@pytest.fixture(scope="module")
def predictor():
    detection = pytest.importorskip("torchvision.models.detection")
    torch.manual_seed(0)
    return detection.mask_rcnn.MaskRCNNPredictor(256, 256, 91)


def test_agrees_with_torchvisions_inference(predictor):
    roi_heads = pytest.importorskip("torchvision.models.detection.roi_heads")
    features, labels = torch.randn(7, 256, 14, 14), torch.randint(91, (7,))
    with torch.no_grad():
        (wanted,) = roi_heads.maskrcnn_inference(predictor(features), [labels])
        deconv, logits = predictor.conv5_mask, predictor.mask_fcn_logits
        found = ops.mask_head_predict(features, deconv.weight, deconv.bias, logits.weight, logits.bias, labels)
    assert found.shape == wanted.shape == (7, 1, 28, 28)
    torch.testing.assert_close(found, wanted, rtol=0, atol=2e-6)


@pytest.mark.parametrize("given", [torch.float32, torch.bfloat16])
def test_autocast_lowers_as_torch_does(predictor, given):
    """With the head's features of either type: the convolutions before it, under the same autocast, give the lower."""
    features, labels = torch.randn(3, 256, 14, 14, dtype=given), torch.randint(91, (3,))
    deconv, logits = predictor.conv5_mask, predictor.mask_fcn_logits
    with torch.no_grad(), torch.autocast("cpu", torch.bfloat16):
        wanted = predictor(features).sigmoid()[range(3), labels][:, None]
        found = ops.mask_head_predict(features, deconv.weight, deconv.bias, logits.weight, logits.bias, labels)
    assert found.dtype == wanted.dtype == torch.bfloat16
    torch.testing.assert_close(found, wanted, rtol=0, atol=1e-2)


def test_hidden_map_is_never_allocated(predictor):
    """100 RoIs layer by layer allocate 80 MB between the layers and 28 MB after them."""
    features, labels = torch.randn(100, 256, 14, 14), torch.randint(91, (100,))
    deconv, logits = predictor.conv5_mask, predictor.mask_fcn_logits
    with torch.profiler.profile(profile_memory=True) as profile, torch.no_grad():
        ops.mask_head_predict(features, deconv.weight, deconv.bias, logits.weight, logits.bias, labels)
    allocated = sum(max(event.self_cpu_memory_usage, 0) for event in profile.events())
    assert allocated < 2 * 100 * 28 * 28 * 4
