"""Episodes from one store into another: all of them, or those of chosen actors, as they lie there."""

import itertools
from collections.abc import Collection, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path
from typing import Final, Literal

import numpy as np

from qtopt.errors import EpisodeConflict
from qtopt.replay.episode_store import EpisodeStore
from qtopt.replay.record import Record, decode_episode
from qtopt.replay.schema import STORE_FILE, read_format
from qtopt.replay.store import ReplayStore
from qtopt.types import Behaviour, UInt8Array

Outcome = Literal["new", "known", "conflict"]
"""What became of an episode; a conflict is one whose UUID is known with other content, which is kept aside."""

_AT_A_TIME: Final = 64
"""Episodes on their way together, so that the store flushes them to the disk together."""


def actor(behaviour: UInt8Array) -> Behaviour:
    """Returns who acted in an episode, whatever single actions epsilon drew at random or a noisy policy left as is.

    Args:
        behaviour: of its actions, (T,).
    """
    found = set(behaviour.tolist())
    ranked = (Behaviour.HUMAN, Behaviour.SCRIPTED, Behaviour.NOISE, Behaviour.GREEDY)
    return next((kind for kind in ranked if kind in found), Behaviour.RANDOM)


def require_mergeable(sources: Sequence[Path], sink: Path) -> None:
    """Raises StoreError unless each of ``sources`` can be opened, and is of the format of ``sink`` if that is there."""
    first = sink if (sink / STORE_FILE).exists() else sources[0]
    for path in sources:
        with EpisodeStore(path, read_only=True) as store:
            store.format.require_same(read_format(first), f"{path}, to be copied into {sink}")


def transfer(
    source: ReplayStore,
    sink: ReplayStore,
    *,
    actors: Collection[Behaviour] = (),
    limit: int = 0,
    offline: bool = False,
) -> Iterator[Outcome]:
    """Appends the sound episodes of ``source`` to ``sink``, a store of the same format; yields what became of each.

    Frames are not decoded: a copy of a copy is the first one, and known where that is known.

    Args:
        source: where they come from.
        sink: where they go.
        actors: whose episodes are wanted; empty for everybody's.
        limit: most episodes to append; 0 for all.
        offline: mark them in their metadata as offline data, which samplers can weigh apart. They are other episodes
            then, and JPEG frames are encoded anew.
    """

    def put(record: Record) -> Outcome:
        try:
            if offline:
                episode = decode_episode(record, source.format)
                marked = replace(episode, metadata={**episode.metadata, "offline": True})
                return "new" if sink.append(marked) else "known"
            return "new" if sink.take(record) else "known"
        except EpisodeConflict:
            return "conflict"

    sink.format.require_same(source.format, "the store to copy into")
    records = source.records()
    wanted = (each for each in records if not actors or actor(np.asarray(each.rows["behaviour"][:-1])) in actors)
    chosen = itertools.islice(wanted, limit or None)
    with ThreadPoolExecutor(_AT_A_TIME) as pool:
        while group := list(itertools.islice(chosen, _AT_A_TIME)):
            yield from pool.map(put, group)
