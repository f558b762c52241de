"""Checkpoint directories: written beside, synced, renamed; the newest few are kept, ``last`` points at the newest."""

import shutil
from collections.abc import Callable
from pathlib import Path

import qtopt
from qtopt.durable import flush, make_directory
from qtopt.errors import CheckpointError

_LAST = "last"
_ASIDE = ".writing-"

PRETRAINED = "pretrained"
"""The word for the policy that ships with the package, in place of a checkpoint's path."""


class Checkpoints:
    """The checkpoints of one run in ``root/<step, ten digits>/``; opening them clears up after a crash."""

    def __init__(self, root: Path, keep: int = 3) -> None:
        self._root, self._keep = root, keep
        make_directory(root)
        for torn in root.glob(f"{_ASIDE}*"):
            _remove(torn)
        if finished := self.all():
            self._point_at(finished[-1])

    def save(self, step: int, write: Callable[[Path], None]) -> Path:
        """Makes the checkpoint of ``step`` by letting ``write`` fill a directory; returns the finished directory.

        A crash at any moment leaves the earlier checkpoints and ``last`` as they were.

        Raises:
            OSError: it cannot be written; what was begun is removed, since it takes room.
        """
        final = self._root / f"{step:010d}"
        if final.exists():
            return final
        writing = self._root / f"{_ASIDE}{step:010d}"
        _remove(writing)
        try:
            writing.mkdir()
            write(writing)
            for path in [*writing.rglob("*"), writing]:
                flush(path)
            writing.rename(final)
        except OSError:
            _remove(writing)
            raise
        self._point_at(final)
        for old in self.all()[: -self._keep]:
            _remove(old.rename(self._root / f"{_ASIDE}{old.name}"))  # a name without all of its files is never seen
        return final

    def all(self) -> list[Path]:
        """Returns the finished checkpoints, oldest first."""
        return all_checkpoints(self._root)

    def _point_at(self, finished: Path) -> None:
        link = self._root / f"{_ASIDE}{_LAST}"
        _remove(link)
        link.symlink_to(finished.name)
        link.rename(self._root / _LAST)
        flush(self._root)


def all_checkpoints(root: Path) -> list[Path]:
    """Returns the finished checkpoints in ``root``, oldest first."""
    return sorted(path for path in root.iterdir() if path.name.isdigit() and path.is_dir())


def is_pretrained(path: Path) -> bool:
    """Returns whether ``path`` is the word for the policy that ships with the package."""
    return str(path) == PRETRAINED


def find_checkpoint(path: Path) -> Path:
    """Returns the checkpoint directory meant by ``path``: itself, or the newest of a run's or checkpoints' directory.

    The word ``pretrained`` alone means the policy that ships with the package.

    Raises:
        CheckpointError: there is none.
    """
    if is_pretrained(path):
        path = Path(qtopt.__file__).parent / PRETRAINED
    for candidate in (path, path / _LAST, path / "checkpoints" / _LAST):
        if (candidate / POLICY_FILE).is_file():
            return candidate.resolve()
    raise CheckpointError(
        f"{path}: found {'no ' + POLICY_FILE if path.exists() else 'nothing'} there, expected a checkpoint or a run's "
        f"directory; give one like outputs/kuka/<time> or outputs/kuka/<time>/checkpoints/last, or say {PRETRAINED}"
    )


POLICY_FILE = "policy.safetensors"
"""The published payload inside a checkpoint; what acting needs, the rest is what training needs."""


def _remove(path: Path) -> None:
    if path.is_symlink():
        path.unlink()
    else:
        shutil.rmtree(path, ignore_errors=True)
