"""What an episode must be for any server to take it, its pictures' size aside; checked where it is made, too."""

import itertools
import re
import uuid as uuid_module
from typing import Final

from qtopt.digest import metadata_json
from qtopt.errors import SchemaMismatch
from qtopt.specs import EPISODE_SPECS, IS_INTERVENTION, MAX_STEPS
from qtopt.types import Behaviour, Episode

MAX_METADATA: Final = 1 << 20
"""Characters of an episode's metadata as JSON: more may take memory and time out of all proportion to its length."""

MAX_METADATA_DEPTH: Final = 64
"""Objects and arrays within each other in an episode's metadata, themselves included: who reads them has a short stack.
"""

MAX_COLLECTOR: Final = 256
"""Characters of a collector's name, which stands in each of its episodes, in figures and in logs."""

PER_ACTION: Final = frozenset({"actions", "rewards", "behaviour", IS_INTERVENTION})
"""Arrays that have T entries in an Episode, not T + 1."""

_KNOWN_BEHAVIOURS: Final = frozenset(int(known) for known in Behaviour)
_LAST_VERSION: Final = 2**63 - 1
_BRACKETS: Final = re.compile(r"[][{}]")


def check_content(episode: Episode) -> None:
    """Raises SchemaMismatch, naming what was found and expected, unless arrays, UUID, version and name are legal."""
    for spec in EPISODE_SPECS:
        spec.validate(getattr(episode, spec.name))
    steps = len(episode.actions)
    if not 1 <= steps <= MAX_STEPS:
        raise SchemaMismatch(f"episode of {steps} actions, expected 1 to {MAX_STEPS}")
    for spec in EPISODE_SPECS:
        found, expected = len(getattr(episode, spec.name)), steps + (spec.name not in PER_ACTION)
        if found != expected:
            raise SchemaMismatch(f"{spec.name}: found {found} rows, expected {expected} for {steps} actions")
    unknown = set(episode.behaviour.tolist()) - _KNOWN_BEHAVIOURS
    if unknown:
        raise SchemaMismatch(f"behaviour: found {sorted(unknown)}, expected values of Behaviour")
    try:
        canonical = uuid_module.UUID(hex=episode.uuid).hex
    except ValueError:
        canonical = ""
    if canonical != episode.uuid:
        raise SchemaMismatch(f"uuid: found {episode.uuid!r}, expected 32 lower-case hexadecimal digits")
    if not 0 <= episode.policy_version <= _LAST_VERSION:
        raise SchemaMismatch(f"policy_version: found {episode.policy_version}, expected 0 to {_LAST_VERSION}")
    check_collector(episode.collector)


def check_collector(name: str) -> None:
    """Raises SchemaMismatch where a collector's name is longer than a server takes."""
    if len(name) > MAX_COLLECTOR:
        raise SchemaMismatch(
            f"collector: found a name of {len(name)} characters, expected at most {MAX_COLLECTOR}: give a shorter one"
        )


def check_metadata(text: str) -> None:
    """Raises SchemaMismatch where metadata as JSON are longer, or nested deeper, than a server takes."""
    if len(text) > MAX_METADATA:
        raise SchemaMismatch(
            f"episode metadata: found JSON of {len(text)} characters, expected at most {MAX_METADATA}: store less with "
            "each episode"
        )
    depth = _depth(text)
    if depth > MAX_METADATA_DEPTH:
        raise SchemaMismatch(
            f"episode metadata: found JSON nested {depth} deep, expected at most {MAX_METADATA_DEPTH}: flatten them"
        )


def _depth(text: str) -> int:
    """Returns how deep JSON is nested; 0 where it has too few brackets to be too deep.

    It is not parsed: that takes the stack for each level.
    """
    if text.count("[") + text.count("{") <= MAX_METADATA_DEPTH:
        return 0
    outside = "".join(text.replace(r"\\", "").replace(r"\"", "").split('"')[::2])
    steps = (1 if bracket in "[{" else -1 for bracket in _BRACKETS.findall(outside))
    return max(itertools.accumulate(steps), default=0)


def check_episode(episode: Episode) -> None:
    """Raises SchemaMismatch, naming what was found and expected, unless a server of this release can take an episode.

    Its pictures' size is the server's own to judge.
    """
    check_content(episode)
    check_metadata(metadata_json(episode.metadata))
    try:
        episode.collector.encode()
    except UnicodeEncodeError as error:
        raise SchemaMismatch(f"collector: found {episode.collector!r}, expected text: {error}") from error
