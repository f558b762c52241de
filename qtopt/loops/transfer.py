"""Episodes from one store into another: all of them, or those of chosen actors."""

import itertools
from collections.abc import Collection, Iterable, Iterator
from dataclasses import replace

from qtopt.interfaces import EpisodeSink
from qtopt.types import Behaviour, Episode


def actor(episode: Episode) -> Behaviour:
    """Returns who acted in an episode, whatever single actions epsilon drew at random or a noisy policy left as is."""
    found = set(episode.behaviour.tolist())
    ranked = (Behaviour.HUMAN, Behaviour.SCRIPTED, Behaviour.NOISE, Behaviour.GREEDY)
    return next((kind for kind in ranked if kind in found), Behaviour.RANDOM)


def transfer(
    episodes: Iterable[Episode],
    sink: EpisodeSink,
    *,
    actors: Collection[Behaviour] = (),
    limit: int = 0,
    offline: bool = False,
) -> Iterator[bool]:
    """Appends episodes to ``sink``, as they are, and yields for each whether it was new there.

    Args:
        episodes: where they come from.
        sink: where they go.
        actors: whose episodes are wanted; empty for everybody's.
        limit: most episodes to append; 0 for all.
        offline: mark them in their metadata as offline data, which samplers can weigh apart.
    """
    wanted = (episode for episode in episodes if not actors or actor(episode) in actors)
    for episode in itertools.islice(wanted, limit or None):
        marked = replace(episode, metadata={**episode.metadata, "offline": True}) if offline else episode
        yield sink.append(marked)
