"""The landing log as a target of fuzzing: files with a mark of their own, and those before, which clients can forge."""

import functools
import json
import random
import shutil
import struct
from collections.abc import Callable
from pathlib import Path
from typing import Final

from qtopt.apps.drills.mutate import damage_bytes
from qtopt.apps.drills.targets import Target
from qtopt.replay import EpisodeStore
from qtopt.replay.landing_file import OLD_MARK, head_of

_SIZES: Final = struct.Struct("<III")
_VALUES: Final[tuple[object, ...]] = (
    *(None, True, -1, 0, 1, 2**31, 2**63, 2**64, 1.5, [], {}),
    *("", "0" * 32, "0" * 64, "{}", '{"collector": 3}'),
)


def log_targets(whole: Path, own: Path) -> list[Target]:
    """Returns targets for a file of the landing log.

    Args:
        whole: a closed store with landed episodes.
        own: where copies of it may be made.
    """
    (landed,) = (whole / "landing").iterdir()
    mark = bytes.fromhex(landed.stem.partition("-")[2])
    ours = landed.read_bytes()
    older = landed.with_name(f"{landed.stem[:8]}.log").name
    return [
        _target("landing log", whole, own, landed.name, ours, mark),
        _target("landing log without a mark", whole, own, older, _marked_anew(ours, mark, OLD_MARK), OLD_MARK),
    ]


def _target(name: str, whole: Path, own: Path, file: str, seed: bytes, mark: bytes) -> Target:
    return Target(name, (seed,), _take(whole, own, file), functools.partial(_damage, mark), 0.0006)


def _take(whole: Path, own: Path, file: str) -> Callable[[bytes], object]:
    """Returns a function that opens a copy of the store with bytes in the place of its log, and reads everything."""

    def take(data: bytes) -> None:
        shutil.rmtree(own, ignore_errors=True)
        shutil.copytree(whole, own, ignore=shutil.ignore_patterns("*.log"))
        (own / "landing" / file).write_bytes(data)
        for read_only in (True, False):
            with EpisodeStore(own, read_only=read_only) as store:
                store.verify()
                store.collectors(10)
                list(store.episodes())

    return take


def _split(data: bytes, mark: bytes) -> tuple[bytes, bytes, int, bytes]:
    """Returns what the first record says of its episode, its steps, the size of its frames, and all behind its head."""
    about_bytes, step_bytes, frame_bytes = _SIZES.unpack_from(data, len(mark))
    body = data[len(mark) + _SIZES.size + 4 :]
    steps = body[about_bytes : about_bytes + step_bytes]
    return body[:about_bytes], steps, frame_bytes, body[about_bytes + step_bytes :]


def _marked_anew(data: bytes, mark: bytes, other: bytes) -> bytes:
    """Returns a file's records under another mark."""
    parts: list[bytes] = []
    while data:
        about, steps, frame_bytes, rest = _split(data, mark)
        parts += [head_of(other, about, steps, frame_bytes), rest[:frame_bytes]]
        data = rest[frame_bytes:]
    return b"".join(parts)


def _damage(mark: bytes, rng: random.Random, data: bytes) -> bytes:
    """Damages bytes, or what a record says, with a checksum that is right: as a sender can who puts it into a frame."""
    kind = rng.randrange(5)
    if kind == 0:
        return damage_bytes(rng, data)
    about, steps, frame_bytes, rest = _split(data, mark)
    if kind == 1:
        about = damage_bytes(rng, about)
    elif kind == 2:
        steps = damage_bytes(rng, steps)
    elif kind == 3:
        frame_bytes = rng.choice((0, 1, frame_bytes - 1, frame_bytes + 1, 2**32 - 1))
    else:
        values = json.loads(about)
        values[rng.randrange(len(values))] = rng.choice(_VALUES)
        about = json.dumps(values).encode()
    return head_of(mark, about, steps, frame_bytes) + rest
