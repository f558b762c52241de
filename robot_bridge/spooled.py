"""One episode as a file of a spool: safetensors, its facts and a digest of everything in the header."""

import enum
import hashlib
import json
import reprlib
from collections.abc import Mapping
from pathlib import Path

import numpy as np
import numpy.typing as npt
from safetensors import SafetensorError
from safetensors.numpy import load, save

from qtopt.errors import CorruptEpisode, SchemaMismatch, StoreError
from qtopt.legal import check_episode
from qtopt.specs import EPISODE_SPECS, IS_INTERVENTION, OLDEST_SCHEMA_VERSION, SCHEMA_VERSION
from qtopt.types import Episode, EpisodeEnd, JsonValue, Outcome

_MALFORMED = (SafetensorError, KeyError, TypeError, ValueError, RecursionError, SchemaMismatch)


def encode_episode(episode: Episode) -> bytes:
    """Returns an episode as safetensors bytes, facts and digest in the header.

    One that is not legal is kept as far as a file can: metadata that are no JSON as Python writes them, and arrays of
    numbers alone.
    """
    found = {spec.name: np.ascontiguousarray(getattr(episode, spec.name)) for spec in EPISODE_SPECS}
    arrays = {name: array for name, array in found.items() if array.dtype.kind in "biuf" and array.dtype.itemsize <= 8}
    if IS_INTERVENTION in arrays and not arrays[IS_INTERVENTION].any():
        del arrays[IS_INTERVENTION]  # as in files from before there was such an array
    facts = {
        "schema": SCHEMA_VERSION,
        "uuid": episode.uuid,
        "end": episode.end,
        "outcome": episode.outcome,
        "policy_version": episode.policy_version,
        "collector": episode.collector,
    }
    try:
        text = json.dumps({**facts, "metadata": dict(episode.metadata)}, sort_keys=True, default=_plain)
    except (TypeError, ValueError, RecursionError):
        text = json.dumps({**facts, "metadata": _in_words(episode.metadata)}, sort_keys=True, default=_plain)
    return save(arrays, {"facts": text, "digest": _digest(arrays, text)})


def decode_episode(path: Path) -> Episode:
    """Reads an episode from a file.

    Raises:
        CorruptEpisode: it is not what was written, or no episode that a server takes.
        SchemaMismatch: it is of a schema version that this release does not read.
        StoreError: the disk does not give it now.
    """
    try:
        content = path.read_bytes()  # not mapped: a sector that is gone would end the process
    except OSError as error:
        raise StoreError(f"{path.name}: cannot be read now: {error}; see to the disk") from error
    try:
        header = _header(content)
        facts = header["facts"]
        known = json.loads(facts)
        version = known["schema"]
        if type(version) is not int:
            raise TypeError(f"schema is {version!r}")
    except _MALFORMED as error:
        raise CorruptEpisode(f"{path.name}: cannot be read: {error}") from error
    if not OLDEST_SCHEMA_VERSION <= version <= SCHEMA_VERSION:
        raise SchemaMismatch(
            f"{path.name}: found schema version {version}, expected {OLDEST_SCHEMA_VERSION} to {SCHEMA_VERSION}; use "
            "the release that wrote it"
        )
    try:
        tensors = load(content)
        names = [spec.name for spec in EPISODE_SPECS if spec.name != IS_INTERVENTION or IS_INTERVENTION in tensors]
        arrays = {name: tensors[name] for name in names}
        if header["digest"] != _digest(arrays, facts):
            raise CorruptEpisode(f"{path.name}: the content does not match its digest")
        episode = Episode(
            uuid=known["uuid"],
            **arrays,
            end=EpisodeEnd(known["end"]),
            outcome=Outcome(known["outcome"]),
            policy_version=known["policy_version"],
            collector=known["collector"],
            metadata=known["metadata"],
        )
        check_episode(episode)
    except (*_MALFORMED, AttributeError) as error:
        raise CorruptEpisode(f"{path.name}: cannot be read: {error}") from error
    return episode


def said_digest(source: Path | bytes) -> str | None:
    """Returns the digest in the header of a file or of its bytes; None where there is none to be read."""
    try:
        return str(_header(source if isinstance(source, bytes) else source.read_bytes())["digest"])
    except _MALFORMED:
        return None


def _header(content: bytes) -> dict[str, str]:
    length = int.from_bytes(content[:8], "little")
    found: dict[str, str] = json.loads(content[8 : 8 + length])["__metadata__"]
    return found


def _in_words(metadata: Mapping[str, JsonValue]) -> str:
    try:
        return repr(metadata)
    except RecursionError:
        return reprlib.repr(metadata)  # what is on top


def _plain(value: object) -> int | str:
    return int(value) if isinstance(value, (enum.IntEnum, np.integer)) else repr(value)


def _digest(arrays: dict[str, npt.NDArray[np.generic]], facts: str) -> str:
    digest = hashlib.sha256(facts.encode())
    for name in sorted(arrays):
        array = arrays[name]
        digest.update(f"{name} {array.dtype} {array.shape} ".encode())
        digest.update(array.tobytes())
    return digest.hexdigest()
