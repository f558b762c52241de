"""Reads everything in a store and says what does not match its checksum."""

import hashlib
import json
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from qtopt import specs
from qtopt.digest import content_digest
from qtopt.errors import CorruptEpisode
from qtopt.replay.catalogue import SegmentRow
from qtopt.replay.disk import DiskShelf
from qtopt.replay.frames import FrameCodec
from qtopt.replay.record import EpisodeRow, Record, decode_episode
from qtopt.replay.schema import FORMAT_NAME, StoreFormat, dump_json, facts_json
from qtopt.replay.segment_files import COLUMN_NAMES, check_shard, column_is_sound, never_had
from qtopt.replay.shelf import Damaged, Retired
from qtopt.types import Episode


@dataclass(frozen=True, slots=True)
class DamagedEpisode:
    """An episode that cannot be served, and why."""

    uuid: str
    first_position: int
    reason: str


@dataclass
class VerifyReport:
    """What was read and what was found.

    Attributes:
        episodes, frames, segments: how many were read.
        damaged: episodes that cannot be served.
        healed: first positions of quarantined episodes that are sound.
        notes: damage that concerns no episode: what other readers would stumble over, but not this store.
    """

    episodes: int = 0
    frames: int = 0
    segments: int = 0
    damaged: list[DamagedEpisode] = field(default_factory=list)
    healed: list[int] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)

    @property
    def sound(self) -> bool:
        """Whether nothing is damaged."""
        return not self.damaged and not self.notes


def verify(shelf: DiskShelf, fmt: StoreFormat) -> VerifyReport:
    """Reads every byte of a store and checks it."""
    report = VerifyReport()
    for segment in shelf.segments():
        notes = _check_segment(shelf.segment_path(segment), segment)
        if notes and not shelf.catalogue.has_segment(segment.number):
            continue  # retired meanwhile
        report.segments += 1
        report.notes += notes
    for batch in shelf.catalogue.batches():
        for row in batch:
            try:
                reason = _check_episode(shelf, fmt, row)
            except Retired:
                continue
            report.episodes += 1
            if reason is not None:
                report.damaged.append(DamagedEpisode(row.uuid, row.first_position, reason))
            elif row.quarantined is not None:
                report.healed.append(row.first_position)
            report.frames += row.length + 1
    return report


def _check_episode(shelf: DiskShelf, fmt: StoreFormat, row: EpisodeRow) -> str | None:
    """Returns what is wrong with an episode, or None."""
    positions = np.arange(row.first_position, row.first_position + row.length + 1)
    try:
        rows = shelf.rows(positions)
        episode = decode_episode(Record(row, rows, tuple(shelf.frames(positions, rows))), fmt)
    except Retired:
        raise
    except (Damaged, CorruptEpisode) as damage:
        return str(damage)
    if fmt.codec is not FrameCodec.JPEG and row.digest not in (content_digest(episode), former_digest(episode)):
        return "the content does not match the digest"
    return None


def former_digest(episode: Episode) -> bytes:
    """Returns the digest that episodes had in stores of format 1 and 2."""
    sha = hashlib.sha256(f"{FORMAT_NAME} {specs.SCHEMA_VERSION}\n".encode())
    head = [episode.uuid, int(episode.end), int(episode.outcome), int(episode.policy_version), facts_json(episode)]
    sha.update(dump_json(head).encode())
    for spec in specs.EPISODE_SPECS:
        if spec.name == specs.IS_INTERVENTION and not episode.is_intervention.any():
            continue
        array = np.ascontiguousarray(getattr(episode, spec.name), np.dtype(spec.dtype).newbyteorder("<"))
        sha.update(f"\n{spec.name}{list(array.shape)}\n".encode())
        sha.update(array.data)
    return sha.digest()


def _check_segment(directory: Path, row: SegmentRow) -> list[str]:
    """Returns what other readers of a segment would stumble over."""
    notes = []
    try:
        json.loads((directory / "zarr.json").read_text())
    except (OSError, ValueError) as error:
        notes.append(f"{directory / 'zarr.json'}: {error}")
    for name in COLUMN_NAMES:
        try:
            sound = never_had(directory, name) or column_is_sound(directory, name)
        except OSError as error:
            notes.append(f"{directory / name}: {error}")
        else:
            if not sound:
                notes.append(f"{directory / name}: does not match its checksum")
    try:
        damaged = check_shard(directory, row)
    except (OSError, CorruptEpisode) as error:
        notes.append(str(error))
    else:
        notes += [
            f"{directory}: bytes {start} to {stop} of frames do not match their checksum" for start, stop in damaged
        ]
    return notes
