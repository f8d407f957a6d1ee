"""structops.patch: the proposals of torchvision's region proposal network, with its results and types."""

from __future__ import annotations

import pytest
import torch
from torchvision.models.detection._utils import BoxCoder
from torchvision.models.detection.anchor_utils import AnchorGenerator
from torchvision.models.detection.image_list import ImageList
from torchvision.models.detection.rpn import RegionProposalNetwork, RPNHead

import structops
from structops.testing.workloads.generate_proposals import distinct, same_but_for_ties

GRIDS = ((24, 32), (12, 16), (6, 8))
SIZES = [(192, 256), (150, 240), (192, 200)]
# Above 1000 boxes torchvision's NMS compares levels, as ours does; below, it adds offsets to coordinates.
TOP_N = {"pre_nms_top_n": {"training": 1200, "testing": 900}, "post_nms_top_n": {"training": 700, "testing": 500}}


def network(owner: type = RegionProposalNetwork, **settings) -> RegionProposalNetwork:
    torch.manual_seed(0)
    anchors = AnchorGenerator(((24, 32), (48, 64), (96, 128)), ((0.5, 1.0, 2.0),) * 3)
    options = {"score_thresh": 0.1, **TOP_N, **settings}
    found = owner(anchors, RPNHead(8, 6), 0.7, 0.3, 64, 0.5, nms_thresh=0.7, **options).eval()
    for parameter in found.head.parameters():  # as given, all scores are a half and all boxes anchors
        torch.nn.init.normal_(parameter, std=0.2)
    return found


def inputs(images: int = 3, dtype: torch.dtype = torch.float32) -> tuple[ImageList, dict[str, torch.Tensor]]:
    g = torch.Generator().manual_seed(1)
    features = {str(i): torch.randn(images, 8, *grid, generator=g).to(dtype) for i, grid in enumerate(GRIDS)}
    return ImageList(torch.zeros(images, 3, 192, 256, dtype=dtype), SIZES[:images]), features


def with_distinct_logits(rpn: RegionProposalNetwork) -> RegionProposalNetwork:
    """torchvision leaves ties open, so that there must be none."""
    head = rpn.head.forward

    def forward(features):
        logits, deltas = head(features)
        return [distinct(x.contiguous()) if x.dtype == torch.float32 else x for x in logits], deltas

    rpn.head.forward = forward  # type: ignore[method-assign]
    return rpn


def check_same(ours: list[torch.Tensor], theirs: list[torch.Tensor], scores: list[torch.Tensor]) -> None:
    assert type(ours) is list
    assert len(ours) == len(theirs) == len(scores)
    for a, b, score in zip(ours, theirs, scores, strict=True):
        assert (a.dtype, a.stride(), a.requires_grad) == (b.dtype, b.stride(), b.requires_grad)
        assert len(a) > 150
        assert same_but_for_ties(a, b, score)


def run_both(rpn: RegionProposalNetwork, given: tuple, ran: list[str]):
    """Boxes of torchvision, boxes of ours, and torchvision's scores."""
    scores: list[torch.Tensor] = []
    original = RegionProposalNetwork.filter_proposals

    def filter_proposals(self, *args):
        found = original(self, *args)
        scores.extend(found[1])
        return found

    RegionProposalNetwork.filter_proposals = filter_proposals  # type: ignore[method-assign]
    try:
        theirs, _ = rpn(*given)
    finally:
        RegionProposalNetwork.filter_proposals = original  # type: ignore[method-assign]
    assert ran == []
    with structops.patch("torchvision"):
        ours, losses = rpn(*given)
    assert losses == {}
    return theirs, ours, scores


class TestForward:
    @pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
    @pytest.mark.parametrize("images", [1, 3])
    def test_same_proposals(self, ran, dtype, images):
        rpn = with_distinct_logits(network().to(dtype))
        with torch.no_grad():
            theirs, ours, scores = run_both(rpn, inputs(images, dtype), ran)
        check_same(ours, theirs, scores)
        assert ran == ["generate_proposals"]

    def test_no_gradient_through_proposals(self, ran):
        theirs, ours, scores = run_both(with_distinct_logits(network()), inputs(), ran)
        check_same(ours, theirs, scores)
        assert not ours[0].requires_grad

    def test_channels_last(self, ran):
        batch, features = inputs()
        features = {k: v.contiguous(memory_format=torch.channels_last) for k, v in features.items()}
        with torch.no_grad():
            theirs, ours, scores = run_both(with_distinct_logits(network()), (batch, features), ran)
        check_same(ours, theirs, scores)

    def test_weights_of_the_coder(self, ran):
        rpn = with_distinct_logits(network())
        rpn.box_coder = BoxCoder((10.0, 8.0, 5.0, 3.0), 0.2)
        with torch.no_grad():
            theirs, ours, scores = run_both(rpn, inputs(), ran)
        check_same(ours, theirs, scores)
        assert ran == ["generate_proposals"]

    @pytest.mark.filterwarnings("ignore:`torch.jit")
    def test_scripted(self, ran):
        rpn, given = network(), inputs()
        with torch.no_grad():
            expected, _ = rpn(*given)
            with structops.patch():
                scripted = torch.jit.script(rpn)
                assert "structops" not in str(scripted.inlined_graph)
                found, _ = scripted(*given)
        for a, b in zip(found, expected, strict=True):
            assert torch.equal(a, b)
        assert set(ran) == {"nms"}

    @pytest.mark.parametrize("what", ["subclass", "method", "coder", "anchors", "grid", "hook", "half", "autocast"])
    def test_what_is_not_torchvisions_own_is_left_alone(self, ran, what):
        rpn, given = network(), inputs()
        if what == "subclass":

            class Own(RegionProposalNetwork):
                def filter_proposals(self, proposals, objectness, image_shapes, num_anchors_per_level):
                    return [p[:7] for p in proposals], []

            rpn = network(Own)
        elif what == "method":
            rpn.filter_proposals = lambda proposals, *_: ([p[:7] for p in proposals], [])
        elif what == "coder":

            class Shifted(BoxCoder):
                def decode(self, rel_codes, boxes):
                    return super().decode(rel_codes, boxes) + 1

            rpn.box_coder = Shifted((1.0, 1.0, 1.0, 1.0))
        elif what == "anchors":

            class Larger(AnchorGenerator):
                def forward(self, images, features):
                    return [2 * anchors for anchors in super().forward(images, features)]

            rpn.anchor_generator = Larger(((24, 32), (48, 64), (96, 128)), ((0.5, 1.0, 2.0),) * 3)
        elif what == "grid":
            grid = rpn.anchor_generator.grid_anchors
            rpn.anchor_generator.grid_anchors = lambda *args: [a + 1 for a in grid(*args)]
        elif what == "hook":
            rpn.anchor_generator.register_forward_hook(lambda module, args, found: [a + 1 for a in found])
        elif what == "half":
            rpn, given = rpn.bfloat16(), inputs(dtype=torch.bfloat16)
        with torch.no_grad(), torch.autocast("cpu", torch.bfloat16, enabled=what == "autocast"):
            if what in ("half", "autocast"):  # torchvision's NMS takes no halves on a CPU: the same refusal, or result
                results = []
                for patched in (False, True):
                    try:
                        with structops.patch() if patched else torch.no_grad():
                            results.append([len(b) > 0 for b in rpn(*given)[0]])
                    except (RuntimeError, NotImplementedError) as refusal:
                        results.append(type(refusal))
                assert "generate_proposals" not in ran
                return
            expected, _ = rpn(*given)
            with structops.patch():
                found, _ = rpn(*given)
        for a, b in zip(found, expected, strict=True):
            assert a.shape == b.shape
            assert torch.equal(a.sort(0).values, b.sort(0).values)
        # Boxes that somebody else decoded still go through filter_proposals, where that is torchvision's.
        assert ran == ([] if what in ("subclass", "method") else ["generate_proposals"])

    def test_a_head_of_another_kind_runs_once(self, ran):
        rpn, given = network(), inputs()
        calls = []

        class Odd(torch.nn.Module):
            """Maps of another type than the features: torchvision's own way from there on."""

            def forward(self, features):
                calls.append(len(features))
                logits, deltas = head(features)
                return [x.double() for x in logits], [d.double() for d in deltas]

        head, rpn.head = rpn.head, Odd()
        with torch.no_grad():
            expected, _ = rpn(*given)
            with structops.patch():
                found, _ = rpn(*given)
        assert calls == [3, 3]
        for a, b in zip(found, expected, strict=True):
            assert a.dtype == b.dtype == torch.float64
            assert torch.equal(a.sort(0).values, b.sort(0).values)


class TestFilterProposals:
    def boxes(self, dtype: torch.dtype = torch.float32):
        g = torch.Generator().manual_seed(0)
        counts = [4608, 1152, 288]
        corner = torch.rand(2, sum(counts), 2, generator=g, dtype=torch.float64) * 200 - 20
        boxes = torch.cat([corner, corner + 60 * torch.rand(corner.shape, generator=g, dtype=torch.float64)], 2)
        logits = torch.randperm(2 * sum(counts), generator=g).view(-1, 1).double() / 1500 - 5
        return boxes.to(dtype), logits.to(dtype), SIZES[:2], counts

    @pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
    @pytest.mark.parametrize("training", [False, True])
    def test_same_results_and_types(self, ran, dtype, training):
        rpn, given = network().train(training), self.boxes(dtype)
        their_boxes, their_scores = rpn.filter_proposals(*given)
        with structops.patch("torchvision"):
            boxes, scores = rpn.filter_proposals(*given)
        assert ran == ["generate_proposals"]
        check_same(boxes, their_boxes, their_scores)
        for a, b in zip(scores, their_scores, strict=True):
            assert (a.dtype, a.stride()) == (b.dtype, b.stride())
            assert torch.equal(a, b)

    def test_no_boxes_left(self, ran):
        rpn = network(score_thresh=1.0)
        for context in (torch.no_grad, structops.patch):
            with context():
                boxes, scores = rpn.filter_proposals(*self.boxes())
            assert [b.shape for b in boxes] == [(0, 4)] * 2
            assert [s.shape for s in scores] == [(0,)] * 2
        assert ran == ["generate_proposals"]

    def test_a_gradient_through_boxes_is_torchvisions(self, ran):
        boxes, *rest = self.boxes()
        boxes.requires_grad_()
        with structops.patch():
            found, _ = network().filter_proposals(boxes, *rest)
        assert found[0].requires_grad
        assert "generate_proposals" not in ran

    def test_a_choice_of_the_users_own(self, ran):
        class First(RegionProposalNetwork):
            def _get_top_n_idx(self, objectness, num_anchors_per_level):
                return torch.arange(40).expand(len(objectness), 40)

        rpn, given = network(First), self.boxes()
        expected = rpn.filter_proposals(*given)[0]
        with structops.patch():
            found = rpn.filter_proposals(*given)[0]
        assert all(map(torch.equal, found, expected))
        assert "generate_proposals" not in ran

    def test_training_losses(self, ran):
        rpn, given = network().train(), inputs()
        targets = [{"boxes": torch.tensor([[10.0, 12, 60, 70], [30, 20, 80, 90]])} for _ in SIZES]

        def step():
            torch.manual_seed(1)  # anchors are sampled
            rpn.zero_grad()
            boxes, losses = rpn(*given, targets)
            sum(losses.values()).backward()
            return boxes, losses, [p.grad.clone() for p in rpn.parameters()]

        expected = step()
        with structops.patch():
            found = step()
        assert ran[0] == "generate_proposals"
        assert all(torch.equal(found[1][name], loss) for name, loss in expected[1].items())
        assert all(map(torch.equal, found[2], expected[2]))
        assert [b.shape for b in found[0]] == [b.shape for b in expected[0]]
        assert not found[0][0].requires_grad
