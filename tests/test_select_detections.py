"""Facts of the last stage of detectors alone: torchvision's own detectors on photographs, calls and waits, graphs."""

from __future__ import annotations

from collections import Counter
from typing import Any

import pytest
import torch
from torch.profiler import ProfilerActivity, profile

import structops
from structops import ops, testing
from structops._backend import OPS
from structops.testing.recording import WAITS, Recorder, captured
from structops.testing.workloads.select_detections import Head, torchvision_detections

SPEC = testing.specs()["select_detections"]
# What reads a tensor's values on the host, or makes a tensor whose size depends on them.
ALLOCATIONS = {"empty", "empty_strided"}


class _Captured(Exception):
    pass


def _photographs() -> list[torch.Tensor]:
    data = pytest.importorskip("skimage.data", reason="scikit-image is not installed")
    photographs = (data.astronaut(), data.coffee(), data.chelsea(), data.rocket())
    return [torch.from_numpy(photograph).permute(2, 0, 1) / 255 for photograph in photographs]


def _detector(kind: str) -> Any:
    from torchvision.models import detection
    from torchvision.models.detection.backbone_utils import resnet_fpn_backbone
    from torchvision.ops.feature_pyramid_network import LastLevelP6P7

    torch.manual_seed(0)
    small = {"min_size": 96, "max_size": 144, "num_classes": 21}
    if kind == "ssd":
        return detection.ssdlite320_mobilenet_v3_large(weights=None, weights_backbone=None, num_classes=21)
    options: dict[str, Any] = {"backbone_name": "resnet18", "weights": None}
    if kind == "faster_rcnn":
        return detection.FasterRCNN(resnet_fpn_backbone(**options), rpn_post_nms_top_n_test=300, **small)
    blocks = LastLevelP6P7(256, 256)
    pyramid = resnet_fpn_backbone(**options, returned_layers=[2, 3, 4], extra_blocks=blocks)
    return (detection.RetinaNet if kind == "retinanet" else detection.FCOS)(pyramid, **small)


def _outputs(kind: str, images: list[torch.Tensor]) -> tuple:
    """What a detector with random weights passes to ``postprocess_detections``."""
    model = _detector(kind).eval()

    def capture(*arguments):
        raise _Captured(*arguments)

    (model.roi_heads if kind == "faster_rcnn" else model).postprocess_detections = capture
    with torch.no_grad(), pytest.raises(_Captured) as captured:
        model(images)
    return captured.value.args


def _louder(logits: torch.Tensor, kind: str) -> torch.Tensor:
    """Logits ``[B, R, C]`` of random weights, all much the same, spread so that thousands pass the thresholds."""
    spread = (logits - logits.mean()) / logits.std()
    return 3 * spread if kind in ("faster_rcnn", "ssd") else 1.5 * spread - 4


@pytest.fixture(scope="module", params=["faster_rcnn", "retinanet", "fcos", "ssd"])
def four_heads(request) -> tuple[Head, list[torch.Tensor] | None]:
    """What a detector's head says of four photographs; proposals of each image where their number differs."""
    pytest.importorskip("torchvision", reason="torchvision is not installed")
    kind, images = request.param, _photographs()
    if kind == "faster_rcnn":
        logits, deltas, proposals, sizes = _outputs(kind, images)
        counts = [len(proposals[0]), 150, 0, 99]  # random weights propose as many as they may of every image
        logits, deltas = (
            torch.cat([t[:n] for t, n in zip(x.split([len(p) for p in proposals]), counts, strict=True)])
            for x in (logits, deltas)
        )
        proposals = [p[:n] for p, n in zip(proposals, counts, strict=True)]
        return Head(kind, _louder(logits, kind), 3 * deltas, torch.empty(0), sizes), proposals
    outputs, anchors, sizes = _outputs(kind, images)
    centerness, levels = None, ()
    if kind == "ssd":
        logits, deltas, priors = outputs["cls_logits"], outputs["bbox_regression"], anchors[0]
    else:
        levels = tuple(logits.shape[1] for logits in outputs["cls_logits"])
        logits, deltas = (torch.cat(outputs[name], 1) for name in ("cls_logits", "bbox_regression"))
        priors = torch.cat(anchors[0])
        if kind == "fcos":
            centerness = torch.cat(outputs["bbox_ctrness"], 1)[..., 0]
            centerness = centerness + 3
            deltas = deltas + 1
    return Head(kind, _louder(logits, kind), deltas, priors, sizes, centerness, levels), None


def _stable_topk(self: torch.Tensor, k: int) -> tuple[torch.Tensor, torch.Tensor]:
    values, indices = self.sort(descending=True, stable=True)
    return values[:k], indices[:k]


@pytest.mark.parametrize("images", [1, 4])
def test_bit_for_bit_with_torchvision_on_photographs(four_heads, images, monkeypatch):
    # Equal scores, which a plain wall gives by the hundred, torch.topk and torch.sort take in any order; here, as
    # structops does, the first of them first.
    monkeypatch.setattr(torch.Tensor, "topk", _stable_topk)
    monkeypatch.setattr("torchvision.ops.boxes.batched_nms", testing.specs()["batched_nms"].peer["torchvision"])
    head, proposals = four_heads
    rows = slice(0, images)
    if proposals is None:
        one = Head(**{**vars(head), "logits": head.logits[rows], "deltas": head.deltas[rows]})
        one = Head(**{**vars(one), "sizes": head.sizes[rows]})
        if head.centerness is not None:
            one = Head(**{**vars(one), "centerness": head.centerness[rows]})
        found = ops.select_detections(**one.arguments())
        wanted = torchvision_detections(one)
    else:
        from torchvision.models.detection import roi_heads

        count = sum(len(p) for p in proposals[rows])
        given = (head.logits[:count], head.deltas[:count], proposals[rows], head.sizes[rows])
        found = ops.select_detections(*given)
        model = roi_heads.RoIHeads(None, None, None, 0.5, 0.5, 512, 0.25, None, 0.05, 0.5, 100)
        wanted = list(zip(*model.postprocess_detections(*given), strict=True))
    boxes, scores, labels, counts = found
    assert len(wanted) == len(counts) == images
    assert int(counts.max()) >= 50, "too few detections to show anything"
    for image, (box, score, label) in enumerate(wanted):
        n = int(counts[image])
        assert n == len(box)
        assert torch.equal(scores[image, :n], score)
        assert torch.equal(labels[image, :n], label)
        assert torch.equal(boxes[image, :n], box)
        assert not boxes[image, n:].any()
        assert not scores[image, n:].any()
        assert (labels[image, n:] == -1).all()


def _dispatched(case: str) -> tuple:
    """What the op itself gets from the public function."""
    from structops.testing.graph_checks import dispatcher_calls

    _, arguments, _ = dispatcher_calls(SPEC, SPEC.case(case), testing.Target())[0]
    return arguments


@pytest.mark.parametrize("case", ["two-stage-padded", "retinanet", "fcos", "ssd"])
def test_few_calls_of_torch_and_no_wait(case, monkeypatch):
    arguments = _dispatched(case)
    with profile(activities=[ProfilerActivity.CPU]) as profiled:
        torch.ops.structops.select_detections(*arguments)
    names = Counter({e.key.removeprefix("aten::"): e.count for e in profiled.key_averages() if "aten::" in e.key})
    assert names
    assert not WAITS & names.keys()
    if structops._backend.unusable("triton", "cpu"):
        return
    # On tensors without values, and without the launches, which under an interpreter are calls of torch themselves.
    for module in ("select_detections", "_top_k"):
        monkeypatch.setattr(f"structops.triton_kernels.{module}.run", lambda *_: None)
    meta = [a.to("meta") if torch.is_tensor(a) else a for a in arguments]
    with Recorder() as recorder:
        OPS["select_detections"].implementation("triton")(*meta)
    assert not recorder.waits
    computing = [name for name in recorder.names if name not in ALLOCATIONS]
    assert len(computing) <= 12, computing


def test_a_list_is_the_same_as_padding(place, g):
    slow = testing.interpreted(structops.current_backend(), place)
    rows, classes = ((9, 0, 14), 3) if slow else ((300, 0, 177), 11)
    logits, deltas = torch.randn(sum(rows), classes, generator=g), torch.randn(sum(rows), 4 * classes, generator=g)
    proposals = torch.rand(sum(rows), 4, generator=g).cumsum(1) * 60
    sizes = [(100, 140), (90, 90), (200, 80)]
    logits, deltas, proposals = (t.to(place) for t in (2 * logits, deltas, proposals))
    found = ops.select_detections(logits, deltas, list(proposals.split(rows)), sizes)
    assert found[3].tolist()[1] == 0
    at = 0
    for image, count in enumerate(rows):
        part = slice(at, at + count)
        alone = ops.select_detections(logits[None, part], deltas[None, part], proposals[None, part], [sizes[image]])
        assert all(torch.equal(together[image], one[0]) for together, one in zip(found, alone, strict=True))
        at += count


def test_halves_are_computed_in_float32(place):
    arguments = SPEC.case("two-stage").draw()
    for dtype in (torch.float16, torch.bfloat16):
        half = {k: v.to(dtype) if k in SPEC.data else v for k, v in arguments.items()}
        half["proposals"] = half["proposals"].float()
        found = ops.select_detections(**{k: v.to(place) if torch.is_tensor(v) else v for k, v in half.items()})
        wide = {k: v.float() if torch.is_tensor(v) and v.is_floating_point() else v for k, v in half.items()}
        wanted = ops.select_detections(**{k: v.to(place) if torch.is_tensor(v) else v for k, v in wide.items()})
        assert found[0].dtype == torch.float32
        assert all(map(torch.equal, found, wanted))


def test_scores_at_the_threshold_are_dropped(place):
    # 0.05 in float32 is more than in float64: torch compares in the scores' type, and so does this.
    threshold = torch.tensor(0.05).item()
    logits = torch.tensor([[[0.0, 0.0]]], device=place)  # both classes score 0.5
    box = torch.tensor([[[10.0, 10.0, 50.0, 50.0]]], device=place)
    deltas = torch.zeros(1, 1, 4, device=place)
    for limit, expected in ((0.5, 0), (0.49999999, 0), (0.4999999, 1), (threshold, 1)):
        found = ops.select_detections(logits, deltas, box, [(100, 100)], score_thresh=limit)
        assert found[3].tolist() == [expected], limit


def test_negative_coordinates_and_classes_do_not_meet(place):
    # Without clipping at 0, torchvision's offsets would lay these over one another.
    box = torch.tensor([[[0.0, 0, 20, 20], [0, 0, 20, 20]]], device=place)
    logits = torch.tensor([[[-9.0, 4, 0], [-9, 0, 4]]], device=place)
    found = ops.select_detections(logits, torch.zeros(1, 2, 4, device=place), box, [(100, 100)])
    assert found[2][0, :2].tolist() == [1, 2]
    assert found[3].tolist() == [2]


def test_export_with_dynamic_sizes():
    arguments = SPEC.case("two-stage-padded").draw()
    tensors = [arguments[k].float() for k in ("class_scores", "box_deltas", "proposals")]
    tensors += [arguments["image_sizes"], arguments["valid"]]

    class Module(torch.nn.Module):
        def forward(self, class_scores, box_deltas, proposals, image_sizes, valid):
            return ops.select_detections(
                class_scores, box_deltas, proposals, image_sizes, valid=valid, detections_per_img=12
            )

    images, rows = torch.export.Dim("images", min=2), torch.export.Dim("rows", min=2)
    shapes = ({0: images, 1: rows}, {0: images, 1: rows}, {0: images, 1: rows}, {0: images}, {0: images})
    program = torch.export.export(Module(), tuple(tensors), dynamic_shapes=shapes).module()
    for part in (slice(0, 3), slice(0, 2)):
        for width in (33, 200):
            sizes = torch.tensor([[50, width]] * 3)[part]
            given = [*(t[part, : 40 - width % 7] for t in tensors[:3]), sizes, tensors[4][part]]
            wanted = ops.select_detections(*given[:4], valid=given[4], detections_per_img=12)
            assert all(map(torch.equal, program(*given), wanted))


@pytest.mark.skipif(not torch.cuda.is_available(), reason="a CUDA graph needs a GPU")
@pytest.mark.parametrize("case", ["two-stage-padded", "retinanet", "fcos", "ssd"])
def test_captured_in_a_cuda_graph(case):
    arguments = {k: v.cuda() if torch.is_tensor(v) else v for k, v in SPEC.case(case).draw().items()}
    wanted = ops.select_detections(**arguments)
    graph, found = captured(lambda: ops.select_detections(**arguments))
    graph.replay()
    assert all(map(torch.equal, found, wanted))
