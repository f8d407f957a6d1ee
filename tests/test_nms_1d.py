"""Facts of suppression along time alone; what every op promises is in test_ops.py."""

import pytest
import torch

import structops
from structops import ops, testing
from structops.reference.nms_1d import nms_1d as definition
from structops.testing.cases.nms_1d import crowded

SPEC = testing.specs()["nms_1d"]


@pytest.mark.parametrize("name", [case.name for case in SPEC.cases])
def test_a_box_one_unit_high_is_a_segment(name):
    """What the generic checks compare with is the definition on boxes; this one knows no second axis."""
    for dtype in SPEC.dtypes:
        arguments = SPEC.case(name).draw()
        arguments["segments"], arguments["scores"] = arguments["segments"].to(dtype), arguments["scores"].to(dtype)
        assert torch.equal(ops.nms_1d(**arguments), definition(**arguments)), dtype


def test_classes_are_apart(place, g):
    slow = testing.interpreted(structops.current_backend(), place)
    n, classes = (60, 3) if slow else (2000, 30)
    segments, scores = crowded(g, n).to(place), torch.rand(n, generator=g).to(place)
    idxs = torch.randint(classes, (n,), generator=g).to(place)
    kept = ops.nms_1d(segments, scores, 0.4, idxs=idxs)
    for c in range(classes):
        members = (idxs == c).nonzero()[:, 0]
        assert torch.equal(kept[idxs[kept] == c], members[ops.nms_1d(segments[members], scores[members], 0.4)])


def test_classes_compile_and_export(g):
    def run(segments, scores, idxs):
        return ops.nms_1d(segments, scores, 0.4, idxs=idxs)

    arguments = crowded(g, 50), torch.rand(50, generator=g), torch.randint(3, (50,), generator=g)
    wanted = run(*arguments)
    with torch._dynamo.config.patch(capture_dynamic_output_shape_ops=True):
        assert torch.equal(torch.compile(run, fullgraph=True, backend="aot_eager")(*arguments), wanted)

    class Module(torch.nn.Module):
        def forward(self, *arguments):
            return run(*arguments)

    assert torch.equal(torch.export.export(Module(), arguments).module()(*arguments), wanted)
