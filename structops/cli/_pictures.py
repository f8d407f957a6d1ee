"""Photographs in, annotated photographs out."""

from __future__ import annotations

import os
import tempfile
import warnings
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import torch
from torch import Tensor

if TYPE_CHECKING:
    from PIL.Image import Image

    from structops.models import Faces, Texts

BOX, POINT = (64, 224, 96), (255, 96, 64)


class UnreadableError(Exception):
    """One sentence about a picture that cannot be had."""


@dataclass(frozen=True)
class Picture:
    name: str  # of the output file, without extension
    image: Image  # RGB, upright

    def tensor(self, longest: int) -> Tensor:
        """``[3, H, W]`` uint8, reduced where a side is longer than that."""
        image = self.image
        if max(image.size) > longest:
            image = image.copy()
            image.thumbnail((longest, longest))
        pixels = torch.frombuffer(bytearray(image.tobytes()), dtype=torch.uint8)
        return pixels.reshape(image.height, image.width, 3).permute(2, 0, 1).contiguous()


def _eight_bits(image: Image) -> Image:
    """Integer grey values (16 bits, unless they are larger) or floats (0 to their maximum) in 8 bits."""
    import numpy as np
    from PIL import Image

    values = np.nan_to_num(np.asarray(image, dtype=np.float32))
    full = max(float(values.max()), 65535.0 if image.mode.startswith("I") else 1.0)
    return Image.fromarray((values.clip(0, full) * (255.0 / full)).round().astype(np.uint8))


def read(path: Path) -> Image:
    """A picture, upright and in RGB, decoded to the last pixel so that nothing about it can fail later."""
    from PIL import Image, ImageOps

    try:
        with warnings.catch_warnings():
            warnings.simplefilter("error", Image.DecompressionBombWarning)
            with Image.open(path) as file:
                upright = ImageOps.exif_transpose(file)
                if upright.mode.startswith(("I", "F")):  # convert() would clip their range to 255 instead of scaling it
                    upright = _eight_bits(upright)
                return upright.convert("RGB")
    except Image.UnidentifiedImageError:
        raise UnreadableError(f"{path} is not a picture in a format that Pillow reads.") from None
    except (Image.DecompressionBombError, Image.DecompressionBombWarning):
        raise UnreadableError(f"{path} has more pixels than Pillow takes ({Image.MAX_IMAGE_PIXELS:,}).") from None
    except OSError as error:
        raise UnreadableError(f"cannot read {path}: {error.strerror or error}.") from None
    except Exception as error:  # a damaged file can raise anything out of a decoder
        raise UnreadableError(f"cannot read {path}: {error}.") from None


def read_all(paths: Sequence[Path]) -> list[Picture]:
    """Every picture, with a name of its own: that of its file, numbered where another one had it first."""
    taken: set[str] = set()
    pictures = []
    for path in paths:
        name, number = path.stem, 1
        while name.lower() in taken:  # some file systems do not tell a from A
            number += 1
            name = f"{path.stem}-{number}"
        taken.add(name.lower())
        pictures.append(Picture(name, read(path)))
    return pictures


def astronaut() -> Picture:
    """The photograph of Eileen Collins that comes inside scikit-image."""
    import skimage.data
    from PIL import Image

    return Picture("astronaut", Image.fromarray(skimage.data.astronaut()))


def page() -> Picture:
    """The photographed page of a book that comes inside scikit-image."""
    import skimage.data
    from PIL import Image

    return Picture("page", Image.fromarray(skimage.data.page()).convert("RGB"))


def annotate_texts(image: Image, texts: Texts) -> Image:
    """A copy with each line's box drawn on it; boxes in the image's pixels."""
    from PIL import ImageDraw

    image = image.copy()
    draw = ImageDraw.Draw(image)
    line = max(round(max(image.size) / 500), 1)
    for box in texts.boxes.tolist():
        corners = [tuple(corner) for corner in box]
        draw.line([*corners, corners[0]], fill=BOX, width=line, joint="curve")
    return image


def annotate_faces(image: Image, faces: Faces) -> Image:
    """A copy with each face's box, landmarks and score drawn on it; faces in the image's pixels."""
    from PIL import ImageDraw, ImageFont

    image = image.copy()
    draw = ImageDraw.Draw(image)
    unit = max(image.size) / 1000  # so that lines look alike on every picture
    for box, score, points in zip(faces.boxes.tolist(), faces.scores.tolist(), faces.landmarks.tolist(), strict=True):
        line = max(round(2 * unit), 1)
        draw.rectangle(box, outline=BOX, width=line)
        radius = min(max(0.02 * (box[2] - box[0]), 0.8), 4 * unit)
        for x, y in points:
            draw.ellipse((x - radius, y - radius, x + radius, y + radius), fill=POINT)
        # A label as wide as the box, within reason, above it or, at the top edge, just inside.
        font = ImageFont.load_default(size=min(max(0.3 * (box[2] - box[0]), 9), 20 * unit + 4))
        left, top, right, bottom = draw.textbbox((0, 0), f"{score:.2f}", font=font)
        width, height = right - left + 2 * line, bottom - top + 2 * line
        x = min(max(box[0], 0), image.width - width)
        y = box[1] - height if box[1] >= height else box[1]
        draw.rectangle((x, y, x + width, y + height), fill=BOX)
        draw.text((x + line - left, y + line - top), f"{score:.2f}", fill="black", font=font)
    return image


def save(image: Image, path: Path) -> None:
    """Write a PNG under another name and rename it: the file is whole or not there."""
    handle, temporary = tempfile.mkstemp(dir=path.parent, prefix=f".{path.stem}-", suffix=".png")
    try:
        with os.fdopen(handle, "wb") as file:
            image.save(file, format="PNG")
        umask = os.umask(0)
        os.umask(umask)
        os.chmod(temporary, 0o666 & ~umask)  # mkstemp's are for the owner alone
        os.replace(temporary, path)
    except BaseException:
        Path(temporary).unlink(missing_ok=True)
        raise
