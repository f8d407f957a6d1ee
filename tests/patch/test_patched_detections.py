"""structops.patch: what torchvision's detectors make of their heads' outputs, with its results and types."""

from __future__ import annotations

import pytest
import torch
from torchvision.models.detection import FCOS, RetinaNet
from torchvision.models.detection._utils import BoxCoder, BoxLinearCoder
from torchvision.models.detection.roi_heads import RoIHeads
from torchvision.models.detection.ssd import SSD

import structops
from structops.integrations import _torchvision_detections as detections

SIZES = [(96, 128), (80, 70), (100, 100)]
LEVELS = [60, 0, 30, 11]
CLASSES = 7


def model(owner: type, **settings) -> torch.nn.Module:
    """The class's method needs settings only, neither backbone nor heads."""
    found = owner.__new__(owner)
    torch.nn.Module.__init__(found)
    default = {"score_thresh": 0.05, "nms_thresh": 0.5, "detections_per_img": 40, "topk_candidates": 50}
    coder = BoxLinearCoder(normalize_by_size=True) if issubclass(owner, FCOS) else BoxCoder((10.0, 10.0, 5.0, 5.0))
    for name, value in {**default, "box_coder": coder, **settings}.items():
        setattr(found, name, value)
    return found


def arguments(owner: type, dtype: torch.dtype = torch.float32, images: int = 3) -> tuple:
    """What a head of that class says: three arguments, or four, as torchvision passes them."""
    g = torch.Generator().manual_seed(0)

    def normal(*size: int) -> torch.Tensor:
        return torch.randn(*size, generator=g, dtype=torch.float64).to(dtype)

    def boxes(count: int) -> torch.Tensor:
        corner = 80 * torch.rand(count, 2, generator=g, dtype=torch.float64)
        return torch.cat([corner, corner + 5 + 40 * torch.rand(count, 2, generator=g, dtype=torch.float64)], 1).to(
            dtype
        )

    sizes, rows = SIZES[:images], sum(LEVELS)
    if issubclass(owner, RoIHeads):
        counts = [40, 0, 25][:images]
        return 2 * normal(sum(counts), CLASSES), normal(sum(counts), 4 * CLASSES), [boxes(n) for n in counts], sizes
    anchors = boxes(rows)
    outputs = {"cls_logits": 2 * normal(images, rows, CLASSES), "bbox_regression": normal(images, rows, 4)}
    if issubclass(owner, SSD):
        return outputs, [anchors.clone() for _ in sizes], sizes
    if issubclass(owner, FCOS):
        outputs |= {"bbox_ctrness": normal(images, rows, 1), "bbox_regression": outputs["bbox_regression"].abs()}
    split = {name: list(tensor.split(LEVELS, 1)) for name, tensor in outputs.items()}
    return split, [list(anchors.clone().split(LEVELS)) for _ in sizes], sizes


def tensors(found) -> list[torch.Tensor]:
    if isinstance(found, tuple):
        return [t for part in found for t in part]
    return [t for one in found for t in one.values()]


OWNERS = pytest.mark.parametrize("owner", [RoIHeads, RetinaNet, FCOS, SSD])


def check_same(owner: type, given: tuple, ran: list[str], by: list[str], **settings) -> None:
    """The same with and without the patch, under which these ops run."""
    theirs = model(owner, **settings).postprocess_detections(*given)
    del ran[:]
    with structops.patch("torchvision"):
        ours = model(owner, **settings).postprocess_detections(*given)
    assert ran == by
    assert type(ours) is type(theirs)
    assert len(ours) == len(theirs)
    if isinstance(ours, list):
        assert [list(one) for one in ours] == [list(one) for one in theirs]
    for a, b in zip(tensors(ours), tensors(theirs), strict=True):
        assert a.dtype == b.dtype
        assert a.requires_grad == b.requires_grad
        assert torch.equal(a, b)


@OWNERS
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_same_results_and_types(owner, dtype, ran):
    for images in (3, 1):
        given = arguments(owner, dtype, images)
        check_same(owner, given, ran, ["select_detections"])
        assert sum(len(t) for t in tensors(model(owner).postprocess_detections(*given))) > 60


@OWNERS
def test_nothing_found(owner, ran):
    check_same(owner, arguments(owner), ran, ["select_detections"], score_thresh=1.0)


@OWNERS
def test_other_settings(owner, ran):
    settings = {"score_thresh": 0.2, "nms_thresh": 0.1, "detections_per_img": 3, "topk_candidates": 5}
    check_same(owner, arguments(owner), ran, ["select_detections"], **settings)


@OWNERS
def test_tensors_of_their_own_are_joined(owner, ran):
    given = arguments(owner)
    if isinstance(given[0], dict) and isinstance(given[0]["cls_logits"], list):
        outputs, anchors, sizes = given
        apart = {name: [t.clone() for t in parts] for name, parts in outputs.items()}
        given = (apart, [[t.clone() for t in parts] for parts in anchors], sizes)
    check_same(owner, given, ran, ["select_detections"])


def test_what_was_split_is_not_copied():
    whole = torch.randn(3, 101, 7)
    joined = detections._joined(whole.split(LEVELS, 1), 1)
    assert joined.data_ptr() == whole.data_ptr()
    assert joined.shape == whole.shape
    parts = whole.split(LEVELS, 1)
    assert torch.equal(detections._joined(parts[1:], 1), whole[:, 60:])
    assert torch.equal(detections._joined(parts[::-1], 1), torch.cat(parts[::-1], 1))


@OWNERS
def test_gradients_are_torchvisions(owner, ran):
    given = arguments(owner)
    logits = given[0]["cls_logits"] if isinstance(given[0], dict) else given[0]
    for tensor in logits if isinstance(logits, list) else [logits]:
        tensor.requires_grad_()
    check_same(owner, given, ran, ["batched_nms"] * len(SIZES))
    with torch.no_grad():
        check_same(owner, given, ran, ["select_detections"])


@OWNERS
def test_half_precision_is_torchvisions(owner, ran):
    given = arguments(owner, torch.bfloat16, 1)
    with structops.patch("torchvision"):  # whose NMS takes no halves
        model(owner).postprocess_detections(*given)
    assert ran == ["batched_nms"]


@OWNERS
def test_a_coder_of_somebody_elses_is_theirs(owner, ran):
    class Coder(BoxLinearCoder if owner is FCOS else BoxCoder):
        pass

    coder = Coder(True) if owner is FCOS else Coder((10.0, 10.0, 5.0, 5.0))
    check_same(owner, arguments(owner), ran, ["batched_nms"] * len(SIZES), box_coder=coder)


@OWNERS
def test_a_coder_that_somebody_changed_is_theirs(owner, ran, monkeypatch):
    changed, name = (BoxLinearCoder, "decode") if owner is FCOS else (BoxCoder, "decode_single")
    original = getattr(changed, name)
    monkeypatch.setattr(changed, name, lambda self, codes, boxes: original(self, codes, boxes) + 1)
    check_same(owner, arguments(owner), ran, ["batched_nms"] * len(SIZES))


@OWNERS
def test_subclasses_keep_their_own_method(owner, ran):
    class Silent(owner):
        def postprocess_detections(self, *arguments):
            return []

    class Counting(owner):
        def postprocess_detections(self, *arguments):
            return len(super().postprocess_detections(*arguments))

    with structops.patch("torchvision"):
        assert model(Silent).postprocess_detections(*arguments(owner)) == []
        assert ran == []
        assert model(Counting).postprocess_detections(*arguments(owner)) == len(SIZES)
        assert ran == ["select_detections"]


@OWNERS
def test_what_torchvision_refuses_it_still_refuses(owner, ran):
    given = arguments(owner)
    outputs = given[0]
    if isinstance(outputs, dict):
        wrong = outputs["bbox_regression"]
        outputs["bbox_regression"] = [t[..., :3] for t in wrong] if isinstance(wrong, list) else wrong[..., :3]
    else:
        given = (outputs, given[1][:, :-1], *given[2:])
    with pytest.raises((RuntimeError, IndexError)) as theirs:
        model(owner).postprocess_detections(*given)
    with structops.patch("torchvision"), pytest.raises((RuntimeError, IndexError)) as ours:
        model(owner).postprocess_detections(*given)
    assert str(ours.value) == str(theirs.value)
    assert "select_detections" not in ran


class Traced(torch.nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.heads = model(RoIHeads)

    def forward(self, logits, deltas, proposals):
        return self.heads.postprocess_detections(logits, deltas, [proposals], [(96, 128)])


def test_traced_models_are_torchvisions(ran):
    logits, deltas, proposals, _ = arguments(RoIHeads, images=1)
    given = (logits, deltas, proposals[0])
    with structops.patch("torchvision"):
        traced = torch.jit.trace(Traced(), given, check_trace=False)
    assert "select_detections" not in ran
    for a, b in zip(tensors(tuple(traced(*given))), tensors(Traced()(*given)), strict=True):
        assert torch.equal(a, b)


def test_scripted_models_are_torchvisions(ran):
    from torchvision.models.detection import ssdlite320_mobilenet_v3_large

    with structops.patch("torchvision"):
        scripted = torch.jit.script(ssdlite320_mobilenet_v3_large(weights=None, weights_backbone=None).eval())
    code = scripted.postprocess_detections.code if hasattr(scripted, "postprocess_detections") else ""
    assert "structops" not in code
    assert "select_detections" not in ran
