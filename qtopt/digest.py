"""What identifies an episode: the SHA-256 of its content, the same where it is made, arrives and lies.

Frames count as pixels, not as encoded bytes, so that another version of an image library on either side never turns a
repeated delivery into a conflict.
"""

import hashlib
import json
from collections.abc import Iterable, Mapping
from typing import Final

import numpy as np
import numpy.typing as npt

from qtopt.errors import SchemaMismatch
from qtopt.specs import EPISODE_SPECS, IS_INTERVENTION
from qtopt.types import Episode, JsonValue

RAW_IMAGES: Final = 1
"""Pixels as they are, among the encodings of ``protos/qtopt/v1/types.proto``."""

Part = str | int | bytes | memoryview


def digest_of(parts: Iterable[Part]) -> bytes:
    """Returns the SHA-256, 32 bytes, of parts that are each preceded by their length as types.proto defines it."""
    digest = hashlib.sha256()
    for part in parts:
        data = part.to_bytes(8, "little", signed=True) if isinstance(part, int) else part
        data = data.encode() if isinstance(data, str) else data
        digest.update(len(data).to_bytes(8, "little"))
        digest.update(data)
    return digest.digest()


def content_digest(episode: Episode) -> bytes:
    """Returns the digest of an episode, 32 bytes: the one that it has as a message with raw images.

    Raises:
        SchemaMismatch: the metadata are not JSON.
    """
    arrays = {spec.name: _bytes_of(getattr(episode, spec.name), spec.dtype) for spec in EPISODE_SPECS}
    is_intervention = arrays.pop(IS_INTERVENTION)
    images = arrays.pop("images")
    parts: list[Part] = [episode.uuid, *episode.images.shape[:3], RAW_IMAGES, images, *arrays.values()]
    parts += [int(episode.end), int(episode.outcome), int(episode.policy_version)]
    parts += [episode.collector, metadata_json(episode.metadata)]
    parts += [is_intervention] if episode.is_intervention.any() else []  # older episodes keep their digests
    return digest_of(parts)


def metadata_json(metadata: Mapping[str, JsonValue]) -> str:
    """Returns metadata as the one text that stands for them; raises SchemaMismatch when they are not JSON."""
    try:
        return json.dumps(dict(metadata), allow_nan=False, sort_keys=True)
    except (TypeError, ValueError, RecursionError) as error:
        raise SchemaMismatch(
            f"episode metadata: {error}; expected JSON values (no NaN, no arrays, few levels)"
        ) from error


def _bytes_of(array: npt.NDArray[np.generic], dtype: str) -> memoryview:
    there = np.ascontiguousarray(array, np.dtype(dtype).newbyteorder("<"))
    return there.reshape(-1).view(np.uint8).data
