"""Whether there is room to write: what health and metrics say of a disk."""

import math
import os
import shutil
from pathlib import Path


def disk_figures(path: Path) -> dict[str, float]:
    """Returns size and free room of the disk of ``path``, or of the nearest directory above it that is there [bytes].

    NaN where the disk does not tell: a figure that is missing must not end whoever reports it.
    """
    try:
        found = shutil.disk_usage(_existing(path))
    except OSError:
        return {"disk_free_bytes": math.nan, "disk_bytes": math.nan}
    return {"disk_free_bytes": float(found.free), "disk_bytes": float(found.total)}


def trouble(path: Path, min_free_mb: float) -> str | None:
    """Says what keeps ``path`` from being written to: a disk that is gone, read-only or nearly full; None if nothing.

    Args:
        path: a directory.
        min_free_mb: room that must be left [MB].
    """
    try:
        place = _existing(path)
        if os.statvfs(place).f_flag & os.ST_RDONLY or not os.access(place, os.W_OK):
            return f"{place} cannot be written to"
        free_mb = shutil.disk_usage(place).free / 1e6
    except OSError as error:
        return f"{path}: {error.strerror}"
    return f"{place} has {free_mb:.0f} MB left, expected {min_free_mb:g} MB" if free_mb < min_free_mb else None


def _existing(path: Path) -> Path:
    whole = path.absolute()
    return next(each for each in (whole, *whole.parents) if each.exists())
