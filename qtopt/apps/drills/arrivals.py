"""Whether every finished episode is in the store, once, in its collector's order, and nothing else is."""

import contextlib
import json
from collections import Counter, defaultdict
from collections.abc import Iterator
from pathlib import Path

from qtopt.apps.drills.audit import all_damage
from qtopt.apps.drills.witness import Witness
from qtopt.replay import EpisodeStore
from qtopt.replay.catalogue import Catalogue
from qtopt.types import JsonValue


def compare(witness: Witness, store: Path) -> tuple[dict[str, JsonValue], list[str]]:
    """Compares what a witness saw with a store that nobody writes to; returns counts, and what is wrong in words.

    The name of a spool's directory is its collector's. What is quarantined is not served, and counts as not stored.
    """
    stored: defaultdict[str, list[str]] = defaultdict(list)
    with contextlib.closing(Catalogue(store, read_only=True)) as catalogue:
        for row in catalogue.episodes():
            if row.quarantined is None:
                stored[json.loads(row.facts)["collector"]].append(row.uuid)
    with EpisodeStore(store, read_only=True) as opened:
        report = opened.verify()
    counts = Counter(uuid for uuids in stored.values() for uuid in uuids)
    finished = [uuid for seen in witness.seen.values() for uuid in seen.kept]
    figures: dict[str, JsonValue] = {
        "finished": len(finished),
        "stored": counts.total(),
        "lost": len(set(finished) - set(counts)),
        "stored_twice": sum(count - 1 for count in counts.values()),
        "still_waiting": witness.waiting,
    }
    breaches = list(_wrong(witness, stored, counts, set(finished)))
    return figures, breaches + all_damage(report)


def _wrong(witness: Witness, stored: dict[str, list[str]], counts: Counter[str], finished: set[str]) -> Iterator[str]:
    if witness.overflowed:
        yield "the witness lost notices; nothing can be said"
    yield from (f"{uuid} was finished and is not stored" for uuid in sorted(finished - set(counts)))
    yield from (f"{uuid} is stored {count} times" for uuid, count in counts.items() if count > 1)
    yield from (f"{uuid} is stored and nobody finished it" for uuid in sorted(set(counts) - finished))
    for spool, seen in witness.seen.items():
        yield from (f"{uuid} was set aside by {spool.name}" for uuid in seen.aside)
        yield from (f"{uuid} was delivered by {spool.name} and is not stored" for uuid in set(seen.gone) - set(counts))
        if stored[spool.name] != [uuid for uuid in seen.kept if uuid in counts]:
            yield f"the episodes of {spool.name} are stored in another order than they were finished in"
