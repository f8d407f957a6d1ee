"""``structops demo``: faces and text in real pictures, and torchvision's detectors with and without structops."""

from __future__ import annotations

import time
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import torch
import typer
from rich.console import Console
from rich.status import Status
from rich.table import Table

import structops
from structops.cli import _pictures
from structops.cli._detectors import MODELS, PARTS, Comparison, build, compare
from structops.cli._networks import NetworkCheck, check
from structops.cli._request import Request

if TYPE_CHECKING:
    from PIL.Image import Image

    from structops.cli._pictures import Picture
    from structops.models import CenterFace, Faces, PPOCRDetector, Texts

#: longest side, in pixels, that the pretrained networks and torchvision's see; the latter reduce to theirs anyway
NETWORK_SIDE, DETECTOR_SIDE = 2048, 1333

REQUEST = Request("demo")
console = Console()


def command(
    images: Annotated[
        list[Path] | None, typer.Argument(help="Pictures; without one, scikit-image's astronaut and page of a book.")
    ] = None,
    out: Annotated[Path, typer.Option(help="Folder for the annotated pictures; made if missing.")] = Path("out/demo"),
    threshold: Annotated[float, typer.Option(min=0, max=1, help="Least score of a face.")] = 0.4,
    device: Annotated[str, typer.Option(help="cpu or cuda.")] = "cpu",
) -> None:
    """Find faces and text with pretrained networks, then run torchvision's detectors stock and patched.

    CenterFace and PP-OCRv6's text detector are written on structops' ops; their pictures, with boxes, go to --out, and
    a table says how far their maps are from onnxruntime's. Faster R-CNN and Mask R-CNN (random weights, fixed seed)
    then see the photographs twice, as torchvision ships them and under structops.patch(): the tables say whether the
    two agree and how long the patched parts took.
    """
    packages = {"torchvision": "torchvision", "PIL": "pillow", "onnx": "onnx", "onnxruntime": "onnxruntime"}
    packages |= {"scipy": "scipy"}
    REQUEST.packages(packages if images else packages | {"skimage": "scikit-image"}, "demo")
    REQUEST.device(device)
    portraits, pages = _read(images)
    REQUEST.folder(out)
    face_network, text_network = _pretrained(device)

    checks = [(picture, _show_faces(picture, face_network, out, threshold, device)) for picture in portraits]
    checks += [(picture, _show_texts(picture, text_network, out, device)) for picture in pages]
    _print_checks(checks)
    comparisons = _compare_detectors(portraits, device)
    _print_agreement(comparisons)
    _print_times(comparisons, device)
    if not all(result.ok for _, result in checks):
        console.print("A network does not agree with onnxruntime.", style="bold red")
        raise typer.Exit(1)
    if not all(comparison.agreement.ok for _, comparison in comparisons):
        console.print("The two do not agree.", style="bold red")
        raise typer.Exit(1)


def _read(images: list[Path] | None) -> tuple[list[Picture], list[Picture]]:
    """Pictures to look for faces in, and for text."""
    if not images:
        return [_pictures.astronaut()], [_pictures.page()]
    try:
        pictures = _pictures.read_all(images)
        return pictures, pictures
    except _pictures.UnreadableError as error:
        REQUEST.fail(str(error))


def _pretrained(device: str) -> tuple[CenterFace, PPOCRDetector]:
    from structops.models import CenterFace, PPOCRDetector

    try:
        return CenterFace.from_onnx().to(device), PPOCRDetector.from_onnx().to(device)
    except (FileNotFoundError, ValueError) as error:
        REQUEST.fail(f"{error}")


def _show_faces(picture: Picture, model: CenterFace, out: Path, threshold: float, device: str) -> NetworkCheck:
    from structops.models import centerface

    pixels = picture.tensor(NETWORK_SIDE)
    start = time.perf_counter()
    faces = model.detect(pixels.to(device), threshold)
    seconds = time.perf_counter() - start
    factor = _to_full_size(picture, pixels)
    boxes, scores, landmarks = (part.cpu() for part in faces)
    faces = type(faces)(boxes * factor.repeat(2), scores, landmarks * factor)
    path = _save(_pictures.annotate_faces(picture.image, faces), out / f"{picture.name}-faces.png")
    _say(picture, _described(faces, "face"), f"CenterFace took {seconds:.2f} s", path)
    return check("CenterFace", model, model.prepared(pixels), centerface.published_weights(), device)


def _show_texts(picture: Picture, model: PPOCRDetector, out: Path, device: str) -> NetworkCheck:
    from structops.models import ppocr

    pixels = picture.tensor(NETWORK_SIDE)
    start = time.perf_counter()
    texts = model.detect(pixels.to(device))
    seconds = time.perf_counter() - start
    texts = texts._replace(boxes=texts.boxes * _to_full_size(picture, pixels))
    path = _save(_pictures.annotate_texts(picture.image, texts), out / f"{picture.name}-text.png")
    _say(picture, _described(texts, "line of text", "lines of text"), f"PP-OCRv6 took {seconds:.2f} s", path)
    return check("PP-OCRv6", model, model.prepared(pixels), ppocr.published_weights(), device)


def _save(image: Image, path: Path) -> Path:
    try:
        _pictures.save(image, path)
    except OSError as error:
        REQUEST.fail(f"cannot write {path}: {error.strerror or error}.")
    return path


def _say(picture: Picture, found: str, took: str, path: Path) -> None:
    size = f"{picture.image.width} x {picture.image.height}"
    text = f"{picture.name} ({size}): {found}; {took}; {path}"
    console.print(text, highlight=False, soft_wrap=True, markup=False)


def _described(found: Faces | Texts, one: str, many: str | None = None) -> str:
    count = len(found.scores)
    if count < 2:
        return f"1 {one}, score {found.scores[0]:.2f}" if count else f"no {one}"
    return f"{count} {many or one + 's'}, scores {found.scores.max():.2f} to {found.scores.min():.2f}"


def _to_full_size(picture: Picture, pixels: torch.Tensor) -> torch.Tensor:
    """What (x, y) in the reduced picture are to be multiplied by."""
    return torch.tensor([picture.image.width / pixels.shape[2], picture.image.height / pixels.shape[1]])


def _print_checks(checks: list[tuple[Picture, NetworkCheck]]) -> None:
    title = "Pretrained networks: maps against onnxruntime's; milliseconds, of upsampling torch → structops"
    table = Table(title=title, title_justify="left")
    for heading in ("picture", "network"):
        table.add_column(heading)
    for heading in ("input", "differ by", "upsampling", "whole"):
        table.add_column(heading, justify="right")
    for picture, result in checks:
        before, after = result.seconds["torch"], result.seconds["structops"]
        table.add_row(
            picture.name,
            result.network,
            " x ".join(str(side) for side in result.size),
            f"{result.difference:.1e}",
            f"{1e3 * before:.1f} → {1e3 * after:.1f} ({before / after:.1f}x)",
            f"{1e3 * result.seconds['whole']:.0f}",
            style=None if result.ok else "red",
        )
    console.print(table)


def _compare_detectors(pictures: list[Picture], device: str) -> list[tuple[Picture, Comparison]]:
    comparisons = []
    with console.status("") as status:
        for name in MODELS:
            status.update(f"{name}: building it")
            model = build(name, device)
            for picture in pictures:
                pixels = (picture.tensor(DETECTOR_SIDE).float() / 255).to(device)
                comparisons.append((picture, compare(name, model, pixels, device, _step(status, picture))))
    return comparisons


def _step(status: Status, picture: Picture):
    return lambda what: status.update(f"{what}: {picture.name}")


def _print_agreement(comparisons: list[tuple[Picture, Comparison]]) -> None:
    table = Table(title="The same detections? (torchvision as shipped against patched)", title_justify="left")
    for heading in ("picture", "model"):
        table.add_column(heading)
    for heading in ("same detections", "boxes differ by", "scores by", "masks by"):
        table.add_column(heading, justify="right")
    for picture, comparison in comparisons:
        result = comparison.agreement
        shown = {name: f"{value:.1e}" for name, value in result.differences.items()}
        table.add_row(
            picture.name,
            comparison.model,
            f"{result.paired} of {result.total}",
            f"{shown['boxes']} px" if "boxes" in shown else "",
            shown.get("scores", ""),
            shown.get("masks", ""),
            style=None if result.ok else "red",
        )
    console.print(table)


def _print_times(comparisons: list[tuple[Picture, Comparison]], device: str) -> None:
    where = torch.cuda.get_device_name() if device == "cuda" else f"{torch.get_num_threads()} CPU threads"
    table = Table(
        title=f"Milliseconds, torchvision → structops {structops.__version__} on {where}", title_justify="left"
    )
    for heading in ("picture", "model"):
        table.add_column(heading)
    columns = (*PARTS, "whole")
    for heading in columns:
        table.add_column(heading, justify="right")
    for picture, comparison in comparisons:
        before, after = comparison.seconds["torchvision"], comparison.seconds["structops"]
        cells = [
            f"{1e3 * before[part]:.0f} → {1e3 * after[part]:.0f} ({before[part] / after[part]:.1f}x)"
            for part in columns
        ]
        table.add_row(picture.name, comparison.model, *cells)
    console.print(table)
