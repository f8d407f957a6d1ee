"""Networks built on :mod:`structops.ops` and :mod:`structops.nn`."""

from structops.models.centerface import CenterFace, Faces
from structops.models.ppocr import PPOCRDetector, Texts

__all__ = ["CenterFace", "Faces", "PPOCRDetector", "Texts"]
