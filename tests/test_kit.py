"""The testing kit itself: it finds planted defects, survives bad candidates, and counts errors as it says."""

import math
import xml.etree.ElementTree as ElementTree

import pytest
import torch

from structops import ops, testing
from structops.testing import checks, junit, tolerances
from structops.testing.candidate import Candidate, load
from structops.testing.run import LAYOUTS, with_layout

calls = 0


def faithful(*args, **kwargs):
    return ops.roi_align(*args, **kwargs)


def off_by_one(input, boxes, output_size, **options):
    return ops.roi_align(input.roll(1, -1), boxes, output_size, **options)


def always_contiguous(*args, **kwargs):
    return ops.roi_align(*args, **kwargs).contiguous()


def nondeterministic(*args, **kwargs):
    global calls
    calls += 1
    return ops.roi_align(*args, **kwargs) * (1 + calls % 2 * 2.0**-22)


def without_nan(*args, **kwargs):
    return ops.roi_align(*args, **kwargs).nan_to_num()


def half_arithmetic(input, boxes, output_size, **options):
    return ops.roi_align(input / 3, boxes, output_size, **options) * 3


def partly_written(*args, **kwargs):
    whole = ops.roi_align(*args, **kwargs)
    result = torch.empty_like(whole)
    result[:, :, :, :1].copy_(whole[:, :, :, :1])
    return result


def overwriting(input, *args, **kwargs):
    result = ops.roi_align(input, *args, **kwargs)
    input.data.mul_(2)
    input.data.div_(2)
    torch.autograd._unsafe_set_version_counter((input,), (input._version + 1,))
    return result


def wrong_gradient(input, *args, **kwargs):
    return ops.roi_align(input * 2 - input.detach(), *args, **kwargs)


def detached(*args, **kwargs):
    return ops.roi_align(*args, **kwargs).detach()


def ties_to_the_higher_index(boxes, scores, iou_threshold):
    return len(boxes) - 1 - ops.nms(boxes.flip(0), scores.flip(0), iou_threshold)


def keeps_less_at_the_threshold(boxes, scores, iou_threshold):
    return ops.nms(boxes, scores, math.nextafter(iou_threshold, 0))


def nan_scores_first(boxes, scores, iou_threshold):
    return ops.nms(boxes, scores.nan_to_num(nan=math.inf), iou_threshold)


def one_class(boxes, scores, idxs, iou_threshold):
    return ops.nms(boxes, scores, iou_threshold)


def class_offsets(boxes, scores, idxs, iou_threshold):
    if len(boxes) == 0:
        return ops.nms(boxes, scores, iou_threshold)
    return ops.nms(boxes + idxs.to(boxes)[:, None] * (boxes.max() + 1), scores, iou_threshold)


def raising(*args, **kwargs):
    raise KeyError("no such kernel")


def crashing(boxes, scores, iou_threshold):
    if not len(boxes):
        import ctypes

        ctypes.string_at(0)
    return ops.nms(boxes, scores, iou_threshold)


def hanging(boxes, scores, iou_threshold):
    while not len(boxes):
        pass
    return ops.nms(boxes, scores, iou_threshold)


def judge(op, function, dtype=torch.float32, only=("quick",)):
    spec = testing.specs()[op]
    jobs = testing.plan(spec, "candidate", "cpu", [dtype], function)
    results = [job.run() for job in jobs if job.case.tags >= set(only)]
    assert results
    return {result.check for result in results if not result.passed}


def test_a_faithful_candidate_passes():
    assert judge("roi_align", faithful) == set()
    assert judge("roi_align", faithful, torch.float64, ("gradient",)) == set()


@pytest.mark.parametrize(
    ("op", "function", "dtype", "finds"),
    [
        ("roi_align", off_by_one, torch.float32, {"values", "gradients"}),
        ("roi_align", nondeterministic, torch.float32, {"determinism"}),
        ("roi_align", without_nan, torch.float32, {"values"}),
        ("roi_align", half_arithmetic, torch.float16, {"values"}),
        ("roi_align", partly_written, torch.float32, {"values", "poison"}),
        ("roi_align", overwriting, torch.float32, {"aliasing"}),
        ("roi_align", wrong_gradient, torch.float32, {"gradients"}),
        ("roi_align", wrong_gradient, torch.float64, {"gradients", "gradcheck"}),
        ("roi_align", raising, torch.float32, {"values", "gradients", "determinism", "aliasing", "poison"}),
        ("nms", ties_to_the_higher_index, torch.float32, {"values"}),
        ("nms", keeps_less_at_the_threshold, torch.float64, {"values"}),
        ("nms", nan_scores_first, torch.float32, {"values"}),
        ("batched_nms", one_class, torch.float32, {"values"}),
        ("batched_nms", class_offsets, torch.float32, {"values"}),
    ],
    ids=lambda value: getattr(value, "__name__", None),
)
def test_planted_defects_are_found(op, function, dtype, finds):
    assert judge(op, function, dtype) >= finds


def test_an_output_of_another_layout_is_found():
    spec = testing.specs()["roi_align"]
    target = testing.Target("candidate", layout="channels_last", function=always_contiguous)
    assert not checks.check_layout(spec, spec.case("box-head"), target).passed
    # Not held against somebody else's function, whose values are as good in any layout.
    assert judge("roi_align", always_contiguous) == set()


def test_a_candidate_in_float32_may_use_coordinates_of_float32():
    spec = testing.specs()["roi_align"]
    for given, wanted in ((None, 1e-5), (1e-3, 1e-3)):
        job = next(testing.plan(spec, "candidate", "cpu", [torch.float32], faithful, given))
        assert job.target.tolerance.relative == wanted
    assert next(testing.plan(spec, "native", "cpu", [torch.float32])).target.tolerance.relative == 2e-6


def test_a_candidate_without_gradients_is_reported():
    spec = testing.specs()["roi_align"]
    jobs = [j for j in testing.plan(spec, "candidate", "cpu", [torch.float32], detached) if j.case.name == "box-head"]
    results = {job.check: job.run() for job in jobs}
    assert results["values"].passed
    assert results["gradients"].skipped == "the result carries no gradient"


def _jobs(*cases):
    jobs = testing.plan(testing.specs()["nms"], "candidate", "cpu", [torch.float32], crashing)
    return [job for job in jobs if job.check == "values" and job.case.name in cases and job.target.layout == LAYOUTS[0]]


@pytest.mark.parametrize(
    ("name", "limit", "expected"), [("crashing", 60, "died of SIGSEGV"), ("hanging", 2, "did not finish within 2 s")]
)
def test_a_crash_or_a_hang_is_the_failure_of_one_case(name, limit, expected, monkeypatch):
    monkeypatch.chdir("/")
    monkeypatch.setenv("PYTHONPATH", __file__.rpartition("/")[0], prepend=":")
    candidate = Candidate(f"test_kit:{name}", limit=limit)
    candidate.limit = 60  # the first call draws cases and loads the definition
    try:
        results = []
        for job in _jobs("threshold=0.5", "no-boxes", "duplicates"):
            candidate.limit = limit if job.case.tags & {"empty"} else 60
            results.append(candidate.run(job))
    finally:
        candidate.close()
    assert [r.passed for r in results] == [r.case != "no-boxes" for r in results]
    assert any(expected in (r.message or "") for r in results)


@pytest.mark.parametrize(
    ("path", "message"),
    [
        ("test_kit", "module:function"),
        ("no_such_module:f", "no module 'no_such_module'"),
        ("torch.no_such_module:f", "no module 'torch.no_such_module'"),
        ("test_kit:no_such_function", "has no 'no_such_function'"),
        ("test_kit:calls", "not a function"),
    ],
)
def test_a_candidate_that_cannot_be_loaded_is_explained(path, message):
    with pytest.raises(ValueError, match=message):
        load(path)


@pytest.mark.parametrize("layout", LAYOUTS)
def test_layouts_hold_the_values(layout):
    x = torch.randn(2, 3, 4, 5)
    y = with_layout(x, layout)
    assert torch.equal(x, y)
    assert y.is_contiguous() == (layout == "contiguous")
    assert y.is_contiguous(memory_format=torch.channels_last) == (layout == "channels_last")


def test_ulp_is_the_spacing_of_the_type():
    for dtype in testing.TOLERANCES:
        x = torch.tensor([1.0, 1.5, 2.0, 3.0, 0.1, 0.0], dtype=dtype)
        above = torch.nextafter(x, torch.full_like(x, math.inf))
        assert torch.equal(tolerances.ulp(x.double(), dtype), (above.double() - x.double())), dtype


def test_distance():
    def verdict(actual, expected, dtype=torch.float32, scale=1.0):
        return tolerances.distance(torch.tensor(actual), torch.tensor(expected).double(), scale, dtype)

    assert verdict([1.0, math.nan, math.inf], [1.0, math.nan, math.inf]) == (testing.Error(), None)
    for actual, expected in (([math.nan], [1.0]), ([1.0], [math.nan]), ([math.inf], [1.0]), ([math.inf], [-math.inf])):
        error, problem = verdict(actual, expected)
        assert math.isinf(error.absolute)
        assert problem is not None
    half = torch.float16
    assert verdict([math.inf], [65519.0], half)[1] is None  # rounds to 65504, one step below infinity
    assert verdict([math.inf], [65000.0], half)[1] is not None
    assert verdict([1.0 + 2**-10], [1.0], half)[1] is None
    assert verdict([1.0 + 2**-9], [1.0], half)[1] is not None
    error, problem = verdict([[0.0, 2.0], [0.5, 0.0]], [[0.0, 2.0], [0.0, 0.0]])
    assert error.absolute == 0.5
    assert "[1, 0]: got 0.5, expected 0" in problem


def test_junit(tmp_path):
    spec = testing.specs()["nms"]
    jobs = [job for job in testing.plan(spec, "native", "cpu", [torch.float32], raising) if job.case.name == "boxes=1"]
    jobs += [job for job in testing.plan(spec, "reference", "cpu", [torch.float32]) if job.case.name == "boxes=1"]
    results = [job.run() for job in jobs]
    junit.write(tmp_path / "deep" / "results.xml", results)
    (suite,) = ElementTree.parse(tmp_path / "deep" / "results.xml").getroot()
    assert int(suite.get("tests")) == len(results) == len(suite)
    failures = [item for item in suite if item.find("failure") is not None]
    assert len(failures) == int(suite.get("failures")) == sum(not r.passed for r in results) > 0
    assert "KeyError" in failures[0].find("failure").get("message")
