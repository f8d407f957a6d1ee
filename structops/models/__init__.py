"""Detectors built on :mod:`structops.ops` and :mod:`structops.nn`."""

from structops.models.centerface import CenterFace, Faces

__all__ = ["CenterFace", "Faces"]
