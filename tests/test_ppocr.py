"""PP-OCRv6's text detector against the network it was read from, its boxes, and the upsampling of both networks."""

from __future__ import annotations

import sys

import numpy as np
import onnx
import pytest
import shapely
import skimage.data
import torch
from PIL import Image
from torch import nn

from structops.cli import _networks, _pictures
from structops.models import PPOCRDetector, _onnx, centerface
from structops.models import ppocr as module
from structops.models._upsample import Upsample


@pytest.fixture(scope="module")
def model() -> PPOCRDetector:
    return PPOCRDetector.from_onnx()


@pytest.fixture(scope="module")
def page() -> torch.Tensor:
    return _pictures.page().tensor(512)


class TestNetwork:
    @pytest.mark.parametrize("name", ["page", "coffee"])
    def test_agrees_with_onnxruntime(self, model, name):
        picture = _pictures.Picture(name, Image.fromarray(getattr(skimage.data, name)()).convert("RGB"))
        x = model.prepared(picture.tensor(512))
        with torch.no_grad():
            ours = model(x)
        (theirs,) = _networks.onnx_outputs(module.published_weights(), x)
        assert theirs.max() > 0.9  # there is text
        torch.testing.assert_close(ours, theirs, atol=1e-4, rtol=0)

    def test_is_its_own_in_float64_but_for_rounding(self, model, page):
        """onnxruntime is ten times as far from it: 1.2e-4 on skimage's ``text``."""
        x = model.prepared(page)[:, :, :256, :512]
        with torch.no_grad():
            exact = PPOCRDetector.from_onnx().double()(x.double())
            torch.testing.assert_close(model(x), exact.float(), atol=2e-5, rtol=0)

    def test_every_tensor_of_the_file_has_its_place(self, model):
        graph = _onnx.load(module.published_weights())
        theirs = list(_onnx.convolutions(graph))
        ours = [m for m in model.modules() if isinstance(m, nn.Conv2d | nn.ConvTranspose2d)]
        names = [name for pair in theirs for name in pair if name is not None]
        assert len(ours) == len(theirs) == 85
        assert len(names) == len(set(names)) == len(model.state_dict()) == 162
        # All that is not a weight is a number of GELU's formula or a factor of a resizing.
        rest = {name: array for name, array in _onnx.tensors(graph).items() if name not in names}
        assert all(array.size <= 4 and name.startswith("helper.constant") for name, array in rest.items())

    def test_other_files_are_refused(self, tmp_path):
        with pytest.raises(ValueError, match=r"not PP-OCRv6's small text detector: it has 63 convolutions, not 85"):
            PPOCRDetector.from_onnx(centerface.published_weights())
        other = onnx.load(str(module.published_weights()))
        (tensor,) = (t for t in other.graph.initializer if t.name == "conv2d_112.w_0")
        tensor.CopyFrom(onnx.numpy_helper.from_array(np.zeros((24, 3, 5, 5), np.float32), tensor.name))
        path = tmp_path / "other.onnx"
        onnx.save(other, str(path))
        with pytest.raises(ValueError, match=r"conv2d_112\.w_0 is \[24, 3, 5, 5\], not \[24, 3, 3, 3\]"):
            PPOCRDetector.from_onnx(path)
        addition = next(node for node in other.graph.node if node.op_type == "Add")
        addition.op_type = "Mul"
        onnx.save(other, str(path))
        with pytest.raises(ValueError, match=r"the bias after conv2d_112\.w_0 is missing"):
            PPOCRDetector.from_onnx(path)
        tensor.ClearField("raw_data"), tensor.ClearField("float_data")
        onnx.save(other, str(path))
        with pytest.raises(ValueError, match=r"tensor conv2d_112\.w_0 cannot be read"):
            PPOCRDetector.from_onnx(path)
        other.graph.initializer.remove(tensor)
        onnx.save(other, str(path))
        with pytest.raises(ValueError, match=r"conv2d_112\.w_0 is missing"):
            PPOCRDetector.from_onnx(path)

    def test_nodes_without_inputs_are_no_convolutions(self):
        kinds = ("Conv", "ConvTranspose", "Add", "Identity")
        nodes = [onnx.helper.make_node(kind, inputs, ["y"]) for kind in kinds for inputs in ([], ["x"])]
        assert list(_onnx.convolutions(onnx.helper.make_graph(nodes, "graph", [], []))) == []

    @pytest.mark.parametrize("network", [PPOCRDetector, centerface.CenterFace])
    @pytest.mark.parametrize("picture", [None, torch.zeros(1, 3, 9, 9), torch.zeros(4, 9, 9), torch.zeros(3, 0, 9)])
    def test_what_is_no_picture(self, network, picture):
        with pytest.raises(RuntimeError, match=rf"{network.__name__}: picture must be \[3, H, W\]"):
            network.prepared(None, picture)

    def test_without_the_weights(self, monkeypatch):
        monkeypatch.setattr(_onnx, "find_spec", lambda name: None)
        with pytest.raises(FileNotFoundError, match="pip install --no-deps 'rapidocr"):
            PPOCRDetector.from_onnx()

    def test_locating_the_weights_imports_nothing(self):
        assert module.published_weights().is_file()
        assert "rapidocr" not in sys.modules


class TestDetect:
    #: middle of each line of skimage's page, from top to bottom, and where it begins and ends
    LINES = ((22, 4, 295), (56, 3, 379), (75, 1, 379), (91, 4, 378), (109, 1, 382), (129, 3, 172), (182, 38, 242))

    def test_finds_the_lines_of_a_page(self, model, page):
        texts = model.detect(page)
        assert len(texts.scores) == len(self.LINES)
        assert texts.scores.min() > 0.5
        for box, (middle, begin, end) in zip(texts.boxes, self.LINES, strict=True):
            assert box[:, 1].mean().item() == pytest.approx(middle, abs=6)
            assert box[[0, 3], 0].mean().item() == pytest.approx(begin, abs=6)
            assert box[[1, 2], 0].mean().item() == pytest.approx(end, abs=6)

    @pytest.mark.parametrize("shape", [(1, 1), (40, 300)])
    def test_any_size(self, model, shape):
        texts = model.detect(torch.zeros(3, *shape, dtype=torch.uint8))
        assert texts.boxes.shape == (0, 4, 2)
        assert texts.scores.shape == (0,)

    @pytest.mark.parametrize(
        ("shape", "prepared"),
        [((191, 384), (736, 1472)), ((800, 1000), (800, 992)), ((100, 2000), (96, 1984)), ((4000, 3000), (1984, 1504))],
    )
    def test_size_of_the_input(self, model, shape, prepared):
        x = model.prepared(torch.full((3, *shape), 255, dtype=torch.uint8))
        assert x.shape == (1, 3, *prepared)
        assert (x - 1).abs().max() < 1e-5

    def test_input_is_blue_first(self, model):
        x = model.prepared(torch.tensor([255, 0, 0], dtype=torch.uint8)[:, None, None].expand(3, 64, 64))
        assert x[0, :, 0, 0].tolist() == [-1, -1, 1]


def turned(angle: float, width: float, height: float, centre: tuple[float, float], size: tuple[int, int]) -> np.ndarray:
    """Which pixels' centres lie in a turned rectangle, and its corners."""
    c, s = np.cos(angle), np.sin(angle)
    axes = np.array([[c, s], [-s, c]])
    y, x = np.indices(size) + 0.5
    inside = (np.abs((np.stack([x, y], 2) - centre) @ axes.T) <= np.array([width, height]) / 2).all(2)
    corners = np.array([[-1, -1], [1, -1], [1, 1], [-1, 1]]) * (width / 2, height / 2) @ axes + centre
    return inside, corners


class TestRegions:
    def test_upright(self):
        probability = np.zeros((60, 80), np.float32)
        probability[40:50, 30:60] = 0.9
        probability[8:12, 20:24] = 0.7
        boxes, scores = module.regions(probability, 0.3, 0.5)
        for box, (x1, y1, x2, y2) in zip(boxes, ((20, 8, 24, 12), (30, 40, 60, 50)), strict=True):
            width, height = x2 - x1, y2 - y1
            grow = 1.6 * width * height / (2 * (width + height))
            x1, y1, x2, y2 = x1 - grow, y1 - grow, x2 + grow, y2 + grow
            np.testing.assert_allclose(box, [[x1, y1], [x2, y1], [x2, y2], [x1, y2]], atol=1e-5)
        np.testing.assert_allclose(scores, [0.7, 0.9], atol=1e-6)

    @pytest.mark.parametrize("angle", [-0.7, -0.3, 0.1, 0.75])
    def test_turned(self, angle):
        inside, corners = turned(angle, 90, 24, (70, 60), (120, 140))
        ((box,), (score,)) = module.regions(inside.astype(np.float32), 0.3, 0.5)
        grow = 1.6 * 90 * 24 / (2 * (90 + 24))
        centre = np.array([70, 60])
        axes = np.array([[np.cos(angle), np.sin(angle)], [-np.sin(angle), np.cos(angle)]])
        local = (corners - centre) @ axes.T
        expected = (local + np.sign(local) * grow) @ axes + centre
        np.testing.assert_allclose(box, expected, atol=3)  # pixels are squares: their corners stick out
        assert 0.9 < score <= 1

    def test_what_is_no_text(self):
        probability = np.zeros((40, 40), np.float32)
        probability[5:15, 5:15] = 0.45  # sure of nothing
        probability[30:32, 3:30] = 1.0  # two pixels thin
        ring = np.zeros_like(probability)
        ring[18:28, 18:38] = 1.0
        ring[19:27, 19:37] = 0.0  # a frame: hardly anything in the box
        for nothing in (probability, ring, np.zeros((8, 8), np.float32), np.full((8, 8), np.nan, np.float32)):
            boxes, scores = module.regions(nothing, 0.3, 0.5)
            assert boxes.shape == (0, 4, 2)
            assert scores.shape == (0,)

    def test_diagonal_neighbours_hang_together(self):
        probability = np.zeros((40, 60), np.float32)
        probability[10:16, 10:20] = probability[16:22, 20:30] = 1.0
        assert len(module.regions(probability, 0.3, 0.3)[0]) == 1
        probability[16:22, 20:30] = 0
        probability[16:22, 21:30] = 1.0
        assert len(module.regions(probability, 0.3, 0.3)[0]) == 2

    def test_rectangle_of_least_area(self):
        """As shapely finds it."""
        rng = np.random.default_rng(0)
        for _ in range(20):
            mask = np.zeros((30, 40), bool)
            for row in range(30):  # a blob: every row has some
                first = rng.integers(0, 20)
                mask[row, first : first + rng.integers(1, 20)] = True
            centre, axes, sides = module._smallest_rectangle(mask)
            rows, columns = np.nonzero(mask)
            squares = shapely.union_all(shapely.box(columns, rows, columns + 1, rows + 1))
            box = shapely.Polygon(centre + (np.array(module._CORNERS) * sides / 2) @ axes)
            assert box.buffer(1e-6).contains(squares)
            assert box.area == pytest.approx(squares.minimum_rotated_rectangle.area, rel=1e-6)
            np.testing.assert_allclose(axes @ axes.T, np.eye(2), atol=1e-12)


class TestUpsample:
    @pytest.mark.parametrize("bn_eps", [None, 1e-3], ids=["bias", "batch norm"])
    @pytest.mark.parametrize("activation", ["relu", "sigmoid"])
    def test_is_its_steps(self, place, g, activation, bn_eps):
        torch.manual_seed(0)
        layer = Upsample(3, 5, activation, bn_eps)
        if layer.bn is not None:
            for value in (layer.bn.running_mean, layer.bn.running_var, layer.bn.weight, layer.bn.bias):
                value.data.uniform_(0.5, 2)
        layer = layer.eval().to(place)
        x, lateral = torch.randn(2, 3, 4, 3, generator=g).to(place), torch.randn(2, 5, 8, 6, generator=g).to(place)
        for arguments in ((x,), (x, lateral)):
            torch.testing.assert_close(layer(*arguments), layer.in_steps(*arguments), atol=1e-6, rtol=1e-6)

    def test_gradients(self, g):
        torch.manual_seed(0)
        layer = Upsample(3, 5, bn_eps=1e-3).double().eval()
        x = torch.randn(2, 3, 4, 3, generator=g, dtype=torch.float64)
        gradients = []
        for forward in (layer.forward, layer.in_steps):
            layer.zero_grad()
            forward(x).square().sum().backward()
            gradients.append([p.grad.clone() for p in layer.parameters()])
        torch.testing.assert_close(*gradients)

    def test_training_uses_the_batch_s_statistics(self, g):
        layer = Upsample(3, 5, bn_eps=1e-3).train()
        layer(torch.randn(2, 3, 4, 3, generator=g))
        assert layer.bn.num_batches_tracked == 1
        assert not torch.equal(layer.bn.running_mean, torch.zeros(5))
