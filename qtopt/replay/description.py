"""``store.json`` against what the segments say of themselves: compared at an opening, written anew where lost."""

import re
from pathlib import Path

import numpy as np

from qtopt.durable import flush
from qtopt.errors import CorruptEpisode, StoreError, StoreFull
from qtopt.replay.disk import QUARANTINE, SEGMENTS
from qtopt.replay.frames import decode_into
from qtopt.replay.lock import WriterLock
from qtopt.replay.quarantine import Quarantine
from qtopt.replay.schema import FORMAT_NAME, FORMAT_VERSION, STORE_FILE, StoreFormat, parse_format
from qtopt.replay.segment_files import UNREADABLE, described_format, read_column, read_tables
from qtopt.replay.segments import SegmentFrames
from qtopt.specs import SCHEMA_VERSION

_STORE_ID = re.compile(rb'"store_id": "([0-9a-f]{32})"')


def require_described(root: Path, fmt: StoreFormat) -> None:
    """Raises StoreError where the segments agree that the frames are other ones than ``store.json`` says.

    With that file wrong every episode would look damaged.
    """
    described = _described(root)
    if len(described) == 1 and not _is_same(described[0], fmt):
        raise StoreError(
            f"{root / STORE_FILE}: says {_words(fmt)}, its segments {_words(described[0])}; `qtopt data verify "
            "--repair` looks at the frames and writes it anew"
        )


def restore_format(root: Path) -> StoreFormat | None:
    """Writes ``store.json`` of the store at ``root`` anew, from its segments, where it is lost or wrong.

    The ``store_id`` stays where it can be read still. Else the store has a new one, and copies that were made of it
    before are of another. The old file goes to the quarantine.

    Returns:
        what was written; None where nothing had to be.

    Raises:
        StoreError: the segments do not tell the format, or another process writes the store.
        SchemaMismatch: it is whole, and of another release.
        StoreFull: it cannot be read now, or there is no room for another.
    """
    if not root.is_dir():
        raise StoreError(f"{root}: no episode store here; check the path")
    lock = WriterLock(root)
    try:
        path = root / STORE_FILE
        data = path.read_bytes() if path.exists() else b""
        try:
            found = parse_format(data, str(path))
        except ValueError:
            found = None
        described = _described(root)
        if found is not None and (len(described) != 1 or _is_same(described[0], found)):
            return None
        fmt = _that_decodes(root, described)
        if found is not None and _is_same(fmt, found):
            return None
        if data:
            Quarantine(root / QUARANTINE, 0.0).keep_bytes(STORE_FILE, data)
        known = _STORE_ID.search(data)
        fmt = fmt.named(known[1].decode() if known else "")
        fmt.write(path)
        flush(root)
        return fmt
    except OSError as error:
        raise StoreFull(f"{root}: {STORE_FILE} cannot be written: {error}; see to the disk and try again") from error
    finally:
        lock.release()


def _described(root: Path) -> list[StoreFormat]:
    """Returns the different formats that the segments say they have."""
    found: list[StoreFormat] = []
    for path in sorted((root / SEGMENTS).glob("*.zarr")):
        fmt = described_format(path)
        if fmt is not None and not any(_is_same(fmt, other) for other in found):
            found.append(fmt)
    return found


def _that_decodes(root: Path, described: list[StoreFormat]) -> StoreFormat:
    """Returns the one of the formats that frames have; one digit of a segment's description may be wrong, too."""
    for path in sorted((root / SEGMENTS).glob("*.zarr")):
        for fmt in described:
            try:
                segment, _ = read_tables(path)
                sizes, _ = read_column(path, "frame_bytes", np.dtype("<u4"), (segment.rows,))
                frame = SegmentFrames(path, segment).read(0, int(sizes[0]))
                decode_into(frame, fmt.codec, np.empty((fmt.height, fmt.width, 3), np.uint8))
            except (*UNREADABLE, CorruptEpisode, MemoryError):
                continue
            return fmt
    example = f'{{"format": "{FORMAT_NAME}", "height": PX, "width": PX, "codec": "raw, jpeg or png", '
    example += f'"format_version": {FORMAT_VERSION}, "schema_version": {SCHEMA_VERSION}}}'
    raise StoreError(
        f"{root}: {STORE_FILE} is lost or damaged, and no sealed segment tells what the frames are. Take it from a "
        f"backup of this store, or write it: {example}"
    )


def _is_same(one: StoreFormat, other: StoreFormat) -> bool:
    return (one.height, one.width, one.codec) == (other.height, other.width, other.codec)


def _words(fmt: StoreFormat) -> str:
    return f"{fmt.height}x{fmt.width} px, {fmt.codec}"
