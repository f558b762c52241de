"""What is on the disk when the power fails: files and directories that were flushed, with the directory above them."""

import os
from contextlib import suppress
from pathlib import Path


def flush(path: Path) -> None:
    """Makes what is in a file or a directory durable; raises OSError."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def write_text(path: Path, text: str) -> None:
    """Writes a text file whole; raises OSError.

    Nobody reads half of it: whoever is ended on the way, or a power failure, leaves it or the one before.
    """
    writing = path.with_name(f".{path.name}.writing")
    writing.write_text(text)
    flush(writing)
    writing.replace(path)


def make_directory(path: Path) -> None:
    """Makes a directory where it is missing, with those above it, and durable; raises OSError.

    One that is there is made durable too: whoever made it may have been killed before it was.
    """
    path = path.absolute()
    missing = [each for each in (path, *path.parents) if not each.exists()]
    path.mkdir(parents=True, exist_ok=True)
    for made in missing:
        flush(made.parent)
    if not missing:
        with suppress(PermissionError):  # somebody else's directory, in which this one was made for us
            flush(path.parent)
