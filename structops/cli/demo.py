"""``structops demo``: faces in real photographs, and torchvision's detectors with and without structops."""

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
from structops.cli._request import Request

if TYPE_CHECKING:
    from structops.cli._pictures import Picture
    from structops.models import CenterFace, Faces

#: longest side, in pixels, that the face network and the detectors see; torchvision's reduce to the latter anyway
FACE_SIDE, DETECTOR_SIDE = 2048, 1333

REQUEST = Request("demo")
console = Console()


def command(
    images: Annotated[
        list[Path] | None, typer.Argument(help="Photographs; without one, scikit-image's astronaut.")
    ] = None,
    out: Annotated[Path, typer.Option(help="Folder for the annotated pictures; made if missing.")] = Path("out/demo"),
    threshold: Annotated[float, typer.Option(min=0, max=1, help="Least score of a face.")] = 0.4,
    device: Annotated[str, typer.Option(help="cpu or cuda.")] = "cpu",
) -> None:
    """Find faces with the pretrained CenterFace network, then run torchvision's detectors stock and patched.

    The face network is written on structops' ops; its pictures, with boxes, landmarks and scores, go to --out. Faster
    R-CNN and Mask R-CNN (random weights, fixed seed) then see the same photographs twice, as torchvision ships them
    and under structops.patch(): the tables say whether the two agree and how long the patched parts took.
    """
    packages = {"torchvision": "torchvision", "PIL": "pillow", "onnx": "onnx"}
    REQUEST.packages(packages if images else packages | {"skimage": "scikit-image"}, "demo")
    REQUEST.device(device)
    pictures = _read(images)
    REQUEST.folder(out)
    model = _face_network(device)

    for picture in pictures:
        _show_faces(picture, model, out, threshold, device)
    comparisons = _compare_detectors(pictures, device)
    _print_agreement(comparisons)
    _print_times(comparisons, device)
    if not all(comparison.agreement.ok for _, comparison in comparisons):
        console.print("The two do not agree.", style="bold red")
        raise typer.Exit(1)


def _read(images: list[Path] | None) -> list[Picture]:
    if not images:
        return [_pictures.astronaut()]
    try:
        return _pictures.read_all(images)
    except _pictures.UnreadableError as error:
        REQUEST.fail(str(error))


def _face_network(device: str) -> CenterFace:
    from structops.models import CenterFace

    try:
        return CenterFace.from_onnx().to(device)
    except (FileNotFoundError, ValueError) as error:
        REQUEST.fail(f"{error}")


def _show_faces(picture: Picture, model: CenterFace, out: Path, threshold: float, device: str) -> None:
    pixels = picture.tensor(FACE_SIDE)
    start = time.perf_counter()
    faces = _in_full_size(model.detect(pixels.to(device), threshold), picture, pixels)
    seconds = time.perf_counter() - start
    path = out / f"{picture.name}-faces.png"
    try:
        _pictures.save(_pictures.annotate(picture.image, faces), path)
    except OSError as error:
        REQUEST.fail(f"cannot write {path}: {error.strerror or error}.")
    console.print(
        f"{picture.name} ({picture.image.width} x {picture.image.height}): {_described(faces)}; "
        f"CenterFace took {seconds:.2f} s; {path}",
        highlight=False,
        soft_wrap=True,
        markup=False,
    )


def _described(faces: Faces) -> str:
    count = len(faces.scores)
    if count < 2:
        return f"1 face, score {faces.scores[0]:.2f}" if count else "no face"
    return f"{count} faces, scores {faces.scores.max():.2f} to {faces.scores.min():.2f}"


def _in_full_size(faces: Faces, picture: Picture, pixels: torch.Tensor) -> Faces:
    factor = torch.tensor([picture.image.width / pixels.shape[2], picture.image.height / pixels.shape[1]])
    boxes, scores, landmarks = (part.cpu() for part in faces)
    return type(faces)(boxes * factor.repeat(2), scores, landmarks * factor)


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
