"""structops.patch: masks pasted into their image, with torchvision's results and types."""

from __future__ import annotations

import pytest
import torch
from torchvision.models.detection import roi_heads, transform
from torchvision.models.detection.transform import GeneralizedRCNNTransform

import structops
from structops.testing.workloads.paste_masks import detections

from .conftest import code_of

SIZE = (120, 160)
FUSES = torch.backends.cpu.get_cpu_capability() in ("AVX2", "AVX512")


def arguments(dtype: torch.dtype = torch.float32, count: int = 8) -> tuple[torch.Tensor, torch.Tensor]:
    masks, boxes = detections(count, torch.Generator().manual_seed(0))
    return masks.to(dtype), (boxes * 0.12).to(dtype)


def check_same(given: tuple, ran: list[str], by: list[str]) -> torch.Tensor:
    """The same with and without the patch, under which these ops run."""
    theirs = roi_heads.paste_masks_in_image(*given)
    del ran[:]
    with structops.patch("torchvision"):
        ours = roi_heads.paste_masks_in_image(*given)
    assert ran == by
    assert ours.dtype == theirs.dtype
    assert ours.stride() == theirs.stride()
    assert ours.requires_grad == theirs.requires_grad
    if FUSES or not by:
        assert torch.equal(ours, theirs)
    else:
        torch.testing.assert_close(ours, theirs, rtol=0, atol=1e-6)
    return ours


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("padding", [0, 1, 2])
def test_same_results_and_types(dtype, padding, ran):
    assert check_same((*arguments(dtype), SIZE, padding), ran, ["paste_masks"]).max() > 0.5
    check_same((*arguments(dtype, 0), SIZE, padding), ran, ["paste_masks"])


def test_masks_and_boxes_of_two_types(ran):
    masks, boxes = arguments()
    check_same((masks, boxes.double(), SIZE), ran, ["paste_masks"])


def test_what_detectors_return(ran):
    """postprocess looks the function up in a module of its own."""
    resize = GeneralizedRCNNTransform(800, 1333, [0.0] * 3, [1.0] * 3).eval()
    masks, boxes = arguments()

    def results() -> list[dict[str, torch.Tensor]]:
        return resize.postprocess([{"boxes": boxes.clone(), "masks": masks}], [SIZE], [(91, 133)])

    theirs = results()
    with structops.patch("torchvision"):
        ours = results()
    assert ran == ["paste_masks"]
    assert list(ours[0]) == list(theirs[0])
    assert ours[0]["masks"].shape == (8, 1, 91, 133)
    for name, tensor in theirs[0].items():
        torch.testing.assert_close(ours[0][name], tensor, rtol=0, atol=0 if FUSES else 1e-6)


def test_gradients_are_torchvisions(ran):
    masks, boxes = arguments()
    masks.requires_grad_()
    check_same((masks, boxes, SIZE), ran, [])
    with torch.no_grad():
        check_same((masks, boxes, SIZE), ran, ["paste_masks"])


@pytest.mark.parametrize(
    "change",
    [
        lambda masks, boxes: (masks.bfloat16(), boxes),
        lambda masks, boxes: (masks.expand(-1, 2, -1, -1), boxes),
        lambda masks, boxes: (masks, boxes[:5]),
    ],
    ids=["halves", "two-channels", "fewer-boxes"],
)
def test_what_only_torchvision_takes(change, ran):
    check_same((*change(*arguments()), SIZE), ran, [])


def test_what_torchvision_refuses_it_still_refuses(ran):
    masks, boxes = arguments()
    for given in ((masks, boxes[:, :3], SIZE), (masks, boxes, (120, -1)), (masks, boxes, (1, 2, 3))):
        with pytest.raises((RuntimeError, IndexError, ValueError)) as theirs:
            roi_heads.paste_masks_in_image(*given)
        with structops.patch("torchvision"), pytest.raises(type(theirs.value)) as ours:
            roi_heads.paste_masks_in_image(*given)
        assert str(ours.value) == str(theirs.value)
    assert ran == []


def test_traced_and_scripted_code_is_torchvisions(ran):
    def traced() -> torch.jit.ScriptFunction:
        return torch.jit.trace(
            lambda *given: transform.paste_masks_in_image(*given, SIZE), arguments(), check_trace=False
        )

    plain = code_of(traced().graph)
    with structops.patch("torchvision"):
        assert code_of(traced().graph) == plain
        scripted = torch.jit.script(roi_heads.paste_masks_in_image)
    assert ran == []
    given = (*arguments(), SIZE)
    assert torch.equal(scripted(*given), roi_heads.paste_masks_in_image(*given))
