"""What is on disk: the columns, derived from ``qtopt.specs``, and the format that a store declares in ``store.json``.

An episode of T actions is T + 1 rows of the step table (the last row's action, reward and behaviour are zero), so that
the state after row i is row i + 1 and each frame is stored once. A row's *position* is its number in the whole store.
"""

import json
import os
import uuid as uuid_module
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from qtopt import specs
from qtopt.errors import CorruptEpisode, SchemaMismatch, StoreError
from qtopt.legal import check_content, check_metadata
from qtopt.replay.frames import FrameCodec, choose_codec
from qtopt.types import Behaviour, Episode, JsonValue

FORMAT_NAME = "qtopt-episode-store"
FORMAT_VERSION = 4
"""1 had its landed episodes in the catalogue; 1 and 2 had other digests; up to 3, files of the landing log had no mark
of their own. They are read as they are, and become 4 when they are written."""
STORE_FILE = "store.json"

Rows = npt.NDArray[np.void]
"""Rows of the step table, dtype ``STEP_DTYPE``."""

_FRAMES, *_COLUMNS = specs.EPISODE_SPECS

STEP_DTYPE = np.dtype(
    [(spec.name, np.dtype(spec.dtype).newbyteorder("<"), spec.shape[1:]) for spec in _COLUMNS]
    + [("frame_bytes", np.dtype("<u4"), ()), ("frame_crc32c", np.dtype("<u4"), ())]
)
"""One row of the step table: the columns of ``specs.EPISODE_SPECS``, then the encoded frame's length and checksum."""

_FIRST_NAMES = [name for name in STEP_DTYPE.names or () if name != specs.IS_INTERVENTION]
_FIRST_DTYPE = np.dtype([(name, STEP_DTYPE[name]) for name in _FIRST_NAMES])

_NETWORK_CHOSE = frozenset((int(Behaviour.GREEDY), int(Behaviour.NOISE)))


def is_offline(episode: Episode) -> bool:
    """Whether an episode counts as offline: what its metadata says, else that no network chose any of its actions."""
    declared = episode.metadata.get("offline")
    if isinstance(declared, bool):
        return declared
    return _NETWORK_CHOSE.isdisjoint(episode.behaviour.tolist())


def rows_to_bytes(rows: Rows) -> bytes:
    """Returns the bytes that stand for ``rows`` in checksums and in the landing log.

    They are those of the columns that there were first. ``is_intervention`` follows them where it is True anywhere, so
    that rows without have the bytes and checksums that they always had.
    """
    first = np.empty(len(rows), _FIRST_DTYPE)
    for name in _FIRST_NAMES:
        first[name] = rows[name]
    flags = rows[specs.IS_INTERVENTION]
    return first.tobytes() + (flags.tobytes() if flags.any() else b"")


def rows_from_bytes(blobs: Sequence[bytes], counts: Sequence[int]) -> Rows:
    """Returns the rows that ``rows_to_bytes`` made each of ``blobs`` of, end to end; zeros for an empty one.

    Args:
        blobs: what was made of several episodes' rows.
        counts: how many rows each episode has.

    Raises:
        CorruptEpisode: a blob has not the length of so many rows.
    """
    size = _FIRST_DTYPE.itemsize
    first = np.zeros(sum(counts), _FIRST_DTYPE)
    flags = np.zeros(len(first), np.bool_)
    raw, start = first.view(np.uint8), 0
    for blob, count in zip(blobs, counts, strict=True):
        if len(blob) not in (0, count * size, count * (size + 1)):
            raise CorruptEpisode(f"steps of {len(blob)} bytes, expected {count} rows of {size} or {size + 1} bytes")
        here = np.frombuffer(blob, np.uint8)
        raw[start * size : start * size + min(len(blob), count * size)] = here[: count * size]
        if len(blob) > count * size:
            flags[start : start + count] = here[count * size :] != 0
        start += count
    rows = np.zeros(len(first), STEP_DTYPE)
    for name in _FIRST_NAMES:
        rows[name] = first[name]
    rows[specs.IS_INTERVENTION] = flags
    return rows


def frame_sizes(data: bytes, count: int) -> list[int]:
    """Returns the bytes of each frame as told by what ``rows_to_bytes`` made of ``count`` rows.

    Raises:
        CorruptEpisode: it was not made of so many rows.
    """
    size = _FIRST_DTYPE.itemsize
    if len(data) not in (count * size, count * (size + 1)):
        raise CorruptEpisode(f"steps of {len(data)} bytes, expected {count} rows of {size} or {size + 1} bytes")
    sizes: list[int] = np.frombuffer(data, _FIRST_DTYPE, count)["frame_bytes"].tolist()
    return sizes


def dump_json(value: Any) -> str:
    """Returns the one JSON text of ``value``: sorted keys, no spaces; raises SchemaMismatch when it is not JSON."""
    try:
        return json.dumps(value, sort_keys=True, separators=(",", ":"), allow_nan=False)
    except (TypeError, ValueError, RecursionError) as error:
        raise SchemaMismatch(f"metadata: {error}; expected JSON values with finite numbers") from error


def facts_json(episode: Episode, *, bounded: bool = True) -> str:
    """Returns the collector's name and the metadata of an episode as JSON in ASCII.

    Raises:
        SchemaMismatch: the metadata are not JSON, or ``bounded`` and longer or deeper than any server takes.
    """
    metadata = dump_json(dict(episode.metadata))
    if bounded:
        check_metadata(metadata)
    return f'{{"collector":{dump_json(episode.collector)},"metadata":{metadata}}}'


def validate(episode: Episode, fmt: "StoreFormat") -> None:
    """Raises SchemaMismatch, naming what was found and expected, unless ``episode`` fits the specs and the store."""
    check_content(episode)
    size = episode.images.shape[1:3]
    if size != (fmt.height, fmt.width):
        raise SchemaMismatch(
            f"images: found {size[0]}x{size[1]} px, expected {fmt.height}x{fmt.width} px as in the store; "
            "set the camera to the store's size or use another store"
        )


@dataclass(frozen=True, slots=True)
class StoreFormat:
    """What a store holds; written to ``store.json`` when it is made.

    Attributes:
        height, width: size of every frame [px].
        codec: how frames are encoded.
        format_version: of the files' layout.
        schema_version: of the meaning of the fields (``specs.SCHEMA_VERSION``).
        store_id: 32 hexadecimal digits that this store shares with its copies alone; empty in one that an earlier
            release wrote and none has written since.
    """

    height: int
    width: int
    codec: FrameCodec
    format_version: int = FORMAT_VERSION
    schema_version: int = specs.SCHEMA_VERSION
    store_id: str = field(default="", compare=False)

    @classmethod
    def for_images(cls, height: int, width: int | None = None, codec: str = "auto") -> "StoreFormat":
        """Returns the format for frames of ``height`` x ``width`` px (square if only one is given)."""
        width = height if width is None else width
        return cls(height, width, choose_codec(height, width, codec))

    @property
    def frame_pixels(self) -> int:
        """Bytes of one decoded frame."""
        return self.height * self.width * 3

    def named(self, store_id: str = "") -> "StoreFormat":
        """Returns this format with a ``store_id``, a new one if none is given."""
        return replace(self, store_id=store_id or uuid_module.uuid4().hex)

    def require_same(self, other: "StoreFormat", where: str) -> None:
        """Raises SchemaMismatch naming each difference between this format (found) and ``other`` (expected).

        Two stores of one format differ in ``store_id``, and may in ``format_version``.
        """
        found = asdict(replace(self, format_version=other.format_version, store_id=other.store_id))
        expected = asdict(other)
        differing = [
            f"{key}: found {found[key]}, expected {expected[key]}" for key in found if found[key] != expected[key]
        ]
        if differing:
            raise SchemaMismatch(
                f"{where}: {'; '.join(differing)}; use another store or the settings it was made with (of a server: "
                "--image-px, --replay.codec)"
            )

    def write(self, path: Path) -> None:
        """Writes ``store.json`` to a new file at ``path``, whole and durably; its directory is left to the caller."""
        aside = path.with_suffix(".tmp")
        with aside.open("w") as file:
            file.write(json.dumps({"format": FORMAT_NAME, **asdict(self)}, indent=2) + "\n")
            file.flush()
            os.fsync(file.fileno())
        aside.replace(path)


def read_format(root: Path) -> StoreFormat:
    """Reads ``store.json`` of the store at ``root``.

    Raises:
        StoreError: there is no store, or the file cannot be read or is damaged.
        SchemaMismatch: it was written by another format or schema version.
    """
    path = root / STORE_FILE
    try:
        return parse_format(path.read_bytes(), str(path))
    except FileNotFoundError as error:
        raise StoreError(
            f"{root}: no episode store here ({STORE_FILE} is missing); check the path. Where only that file was lost, "
            f"{_ANEW}"
        ) from error
    except OSError as error:
        raise StoreError(f"{path}: cannot be read: {error}; see to the disk, and who may read it") from error
    except ValueError as error:
        raise StoreError(
            f"{path}: cannot be read: {error}; expected the JSON description of a store. {_ANEW}"
        ) from error


_ANEW = "`qtopt data verify --repair` writes it anew from the segments"


def parse_format(data: bytes, where: str) -> StoreFormat:
    """Returns what the bytes of a ``store.json`` say.

    Raises:
        ValueError: they are damaged, or something else.
        SchemaMismatch: they are of another format or schema version.
    """
    try:
        values: JsonValue = json.loads(data)
    except RecursionError as error:
        raise ValueError(str(error)) from error
    if not isinstance(values, dict) or values.get("format") != FORMAT_NAME:
        raise ValueError(f"not the description of a {FORMAT_NAME}")
    for key, known in (("format_version", range(1, FORMAT_VERSION + 1)), ("schema_version", [specs.SCHEMA_VERSION])):
        found = values.get(key)
        if type(found) is not int:
            raise ValueError(f"{key} is {found!r}")
        if found not in known:
            raise SchemaMismatch(
                f"{where}: {key}: found {found}, expected {max(known)}; use the release that wrote this store"
            )
    try:
        return StoreFormat(
            height=int(str(values["height"])),
            width=int(str(values["width"])),
            codec=FrameCodec(str(values["codec"])),
            format_version=int(str(values["format_version"])),
            store_id=str(values.get("store_id", "")),
        )
    except KeyError as error:
        raise ValueError(f"found no {error}") from error
