"""An episode as it is stored: rows of the step table, encoded frames, and what identifies it."""

import json
import re
from dataclasses import dataclass, fields, replace
from operator import attrgetter
from typing import Any, Final
from uuid import uuid4

import numpy as np

from qtopt.digest import content_digest
from qtopt.errors import CorruptEpisode
from qtopt.legal import PER_ACTION
from qtopt.replay import frames
from qtopt.replay.checksum import crc32c
from qtopt.replay.schema import (
    STEP_DTYPE,
    Rows,
    StoreFormat,
    facts_json,
    is_offline,
    rows_to_bytes,
    validate,
)
from qtopt.specs import EPISODE_SPECS, MAX_STEPS
from qtopt.types import Episode, EpisodeEnd, Outcome

REPLACED: Final = "stored again since, under another position"
UNTOLD: Final = "its row of the episode table is damaged"
"""Reasons why an episode is quarantined that no file put back takes away."""


@dataclass(frozen=True, slots=True)
class EpisodeRow:
    """A row of the episode table.

    Attributes:
        first_position: position of the episode's first row; -1 before the store has given it one.
        uuid: 32 hexadecimal digits.
        digest: SHA-256 of the content, 32 bytes: ``content_digest``, or in stores of format 1 and 2 another.
        length: T, the number of actions.
        end, outcome, policy_version: as in ``Episode``.
        offline: whether it counts as offline data.
        facts: JSON of the collector's name and the metadata.
        rows_crc32c: checksum of the episode's rows; each frame has its own in the rows.
        segment: number of the sealed segment that holds it; None while it is landed.
        quarantined: why it is not served; None while it is sound. One that is ``REPLACED`` has a UUID of its own.
    """

    first_position: int
    uuid: str
    digest: bytes
    length: int
    end: int
    outcome: int
    policy_version: int
    offline: bool
    facts: str
    rows_crc32c: int
    segment: int | None = None
    quarantined: str | None = None

    def check(self, rows: Rows) -> bool:
        """Whether ``rows`` are what was stored."""
        return self.rows_crc32c == crc32c(rows_to_bytes(rows))

    def replaced(self) -> "EpisodeRow":
        """Returns what becomes of a damaged episode when it is stored again: its UUID goes over to the new one."""
        return replace(self, uuid=uuid4().hex, quarantined=REPLACED)

    def lasting(self) -> tuple[Any, ...]:
        """Returns the values of ``LASTING``."""
        return _LASTING_OF(self)

    def is_same(self, other: "EpisodeRow") -> bool:
        """Whether both are of one content, also where one of the digests is as in stores of format 1 and 2."""
        return self.digest == other.digest or _CONTENT(self) == _CONTENT(other)


LASTING = tuple(field.name for field in fields(EpisodeRow) if field.name not in ("segment", "quarantined"))
"""The fields that never change once the episode is stored."""
_LASTING_OF = attrgetter(*LASTING)
_TYPES: Final = (int, str, str, int, int, int, int, bool, str, int)
"""Of the values of ``LASTING`` as JSON, in which a digest is hexadecimal."""
_HEXADECIMAL: Final = re.compile("[0-9a-f]{96}")
_ENDS, _OUTCOMES = frozenset(map(int, EpisodeEnd)), frozenset(map(int, Outcome))
_CONTENT = attrgetter("uuid", "length", "end", "outcome", "policy_version", "facts", "rows_crc32c")


def row_of(values: Any) -> tuple[EpisodeRow, str]:
    """Returns the row, without its facts, of which ``values`` are ``LASTING`` as JSON, and its facts.

    Raises:
        CorruptEpisode: they are no row, or one that no episode has.
    """
    if not isinstance(values, list) or tuple(map(type, values)) != _TYPES:
        raise CorruptEpisode("found no row of an episode")
    first_position, uuid, digest, length, end, outcome, policy_version, offline, facts, rows_crc32c = values
    if not (
        _HEXADECIMAL.fullmatch(uuid + digest)
        and 1 <= length <= MAX_STEPS
        and end in _ENDS
        and outcome in _OUTCOMES
        and 0 <= first_position < 1 << 62
        and 0 <= policy_version < 1 << 63
        and 0 <= rows_crc32c < 1 << 32
        and _are_facts(facts)
    ):
        raise CorruptEpisode("found a row with values that no episode has")
    others = (length, end, outcome, policy_version, offline, "", rows_crc32c)
    return EpisodeRow(first_position, uuid, bytes.fromhex(digest), *others), facts


def _are_facts(text: str) -> bool:
    try:
        facts = json.loads(text)
        return isinstance(facts["collector"], str) and isinstance(facts["metadata"], dict)
    except RecursionError:
        return True  # nested as deep as earlier releases took them; another stack may have had the room
    except (ValueError, TypeError, LookupError):
        return False


@dataclass(frozen=True, slots=True)
class Record:
    """An episode ready to be stored: its row of the episode table, its T + 1 step rows and its T + 1 encoded frames."""

    row: EpisodeRow
    rows: Rows
    frames: tuple[bytes, ...]

    @property
    def frame_bytes(self) -> int:
        """Bytes of the encoded frames."""
        return sum(map(len, self.frames))

    @property
    def size(self) -> int:
        """Bytes of frames and facts: what it takes on a disk and in memory beside its steps."""
        return self.frame_bytes + len(self.row.facts)


def encode_episode(episode: Episode, fmt: StoreFormat, digest: bytes | None = None) -> Record:
    """Validates and encodes an episode; raises SchemaMismatch unless it fits the store.

    ``digest`` is its ``content_digest``, where it is known.
    """
    validate(episode, fmt)
    encoded = tuple(frames.encode(image, fmt.codec) for image in episode.images)
    rows = np.zeros(len(episode) + 1, STEP_DTYPE)
    for spec in EPISODE_SPECS[1:]:
        values = getattr(episode, spec.name)
        rows[spec.name][: len(values)] = values
    rows["frame_bytes"] = [len(frame) for frame in encoded]
    rows["frame_crc32c"] = [crc32c(frame) for frame in encoded]
    row = EpisodeRow(
        first_position=-1,
        uuid=episode.uuid,
        digest=digest or content_digest(episode),
        length=len(episode),
        end=int(episode.end),
        outcome=int(episode.outcome),
        policy_version=int(episode.policy_version),
        offline=is_offline(episode),
        facts=facts_json(episode),
        rows_crc32c=crc32c(rows_to_bytes(rows)),
    )
    return Record(row, rows, encoded)


def decode_episode(record: Record, fmt: StoreFormat) -> Episode:
    """Returns the episode in ``record``; raises CorruptEpisode when a checksum does not match."""
    row = record.row
    if not row.check(record.rows):
        raise CorruptEpisode(
            f"episode {row.uuid}: its steps do not match their checksum; run `qtopt data verify --repair`"
        )
    images = np.empty((row.length + 1, fmt.height, fmt.width, 3), np.uint8)
    for step, (frame, expected) in enumerate(zip(record.frames, record.rows["frame_crc32c"], strict=True)):
        if crc32c(frame) != int(expected):
            raise CorruptEpisode(
                f"episode {row.uuid}: frame {step} does not match its checksum; run `qtopt data verify --repair`"
            )
        frames.decode_into(frame, fmt.codec, images[step])
    arrays = {
        spec.name: np.ascontiguousarray(record.rows[spec.name][: row.length + (spec.name not in PER_ACTION)])
        for spec in EPISODE_SPECS[1:]
    }
    facts = json.loads(row.facts)
    return Episode(
        uuid=row.uuid,
        images=images,
        **arrays,
        end=EpisodeEnd(row.end),
        outcome=Outcome(row.outcome),
        policy_version=row.policy_version,
        collector=facts["collector"],
        metadata=facts["metadata"],
    )
