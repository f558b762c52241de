"""A look into a store: what is in it, whether it is sound, what an episode looked like; copies of it, less of it."""

import sys
from collections import Counter
from collections.abc import Collection, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Annotated, Literal

import tyro
from rich.console import Console
from rich.progress import track

from qtopt.apps.process import say, set_up_logs
from qtopt.config import STRICT
from qtopt.errors import ConfigError, StoreError
from qtopt.loops.filmstrip import filmstrip, save_png
from qtopt.loops.metrics import wilson
from qtopt.replay import (
    EpisodeStore,
    ReplayConfig,
    RetentionConfig,
    VerifyReport,
    back_up,
    rebuild_catalogue,
    restore,
    restore_format,
)
from qtopt.replay.transfer import require_mergeable, transfer
from qtopt.specs import MAX_STEPS
from qtopt.types import Behaviour, Episode

Action = Literal["info", "verify", "show", "copy", "merge", "backup", "restore", "prune"]


@dataclass(frozen=True)
class Config:
    """Looks into an episode store: info, verify, show; makes others of it: copy, merge, backup, restore; prunes it.

    Attributes:
        action: ``info`` says what is in it, ``verify`` reads and checks every byte, ``show`` draws an episode,
            ``copy`` appends its episodes to another store, ``merge`` does so with several stores; ``backup`` makes a
            copy of a store that may be in use, or brings one up to date, ``restore`` makes a store of such a copy and
            checks it; ``prune`` gives up its oldest segments.
        store: directory of the store, or of the run that it belongs to; of several with merge.
        episode: with show, its UUID or its number from 0; negative numbers count from the end.
        output: with show, the PNG file to write.
        repair: with verify, keep damaged episodes aside, and rebuild the catalogue and store.json where they are lost;
            nobody else may have the store open. Episodes kept aside are taken again by merge from a store with them.
        into: with copy and merge, the store that is appended to, or the run that it belongs to; made if it is not
            there; what it has already, undamaged, is left out. With backup, the directory of the copy; with restore,
            that of the new store, or the run whose store is lost.
        actors: with copy, only episodes of the script, of the learned policy with noise, without (greedy), or of
            people; empty copies all.
        limit: with copy, most episodes; 0 for all.
        offline: with copy, mark them as offline data (see ``--replay.sampler.offline-share``).
        link: with backup, share the segments' files instead of copying them.
        retention: with prune, what is kept; nobody else may have the store open. A server has the same settings.
    """

    __pydantic_config__ = STRICT

    action: Annotated[Action, tyro.conf.Positional]
    store: tuple[Path, ...]
    episode: str = "-1"
    output: Path = Path("episode.png")
    repair: bool = False
    into: Path | None = None
    actors: tuple[Literal["scripted", "noise", "greedy", "human", "random"], ...] = ()
    limit: int = 0
    offline: bool = False
    link: bool = False
    retention: RetentionConfig = field(default_factory=RetentionConfig)

    def __post_init__(self) -> None:
        if (self.action in _INTO) != (self.into is not None):
            raise ConfigError(
                f"found {self.action} {'with' if self.into else 'without'} --into; {', '.join(_INTO)} go with --into"
            )
        if len(self.store) != 1 and self.action != "merge":
            raise ConfigError(f"{self.action}: found {len(self.store)} stores, expected one; merge takes several")
        places = [*self.store, *([self.into] if self.into else [])]
        if len({place.resolve() for place in places}) < len(places):
            raise ConfigError(
                f"{self.action}: found the same store twice in {', '.join(map(str, places))}, expected different ones; "
                "give each once"
            )
        if self.limit < 0:
            raise ConfigError(f"limit is {self.limit}, expected 0 or more")
        if self.repair and self.action != "verify":
            raise ConfigError(f"--repair goes with verify, found {self.action}")
        if self.link and self.action != "backup":
            raise ConfigError(f"--link goes with backup, found {self.action}")
        if self.retention.unlimited == (self.action == "prune"):
            raise ConfigError(f"found {self.action} {'without' if self.action == 'prune' else 'with'} --retention")


_INTO = ("copy", "merge", "backup", "restore")


def main(config: Config) -> int:
    """Does what was asked; 1 when verify found damage beyond episodes known to be lost, or a merge found conflicts."""
    set_up_logs("data", sys.stderr)
    config = _on_stores(config)
    root = config.store[0]
    match config.action:
        case "copy" | "merge":
            return _copy(config)
        case "backup" | "restore":
            return _back_up(root, config)
        case "prune":
            return _prune(root, config.retention)
        case "info":
            return _info(root)
        case "show":
            return _show(root, config)
        case "verify":
            return _verify(root, repair=config.repair)


def _on_stores(config: Config) -> Config:
    """Returns ``config`` with the stores of the runs that it names; a backup is never made over a run's own store."""
    into = config.into if config.into is None or config.action == "backup" else store_of(config.into)
    return replace(config, store=tuple(map(store_of, config.store)), into=into)


def store_of(path: Path) -> Path:
    """Returns the store at ``path``: itself, or that of a run's directory."""
    return path / "store" if (path / "store").is_dir() else path


def _copy(config: Config) -> int:
    assert config.into is not None
    actors = [Behaviour[name.upper()] for name in config.actors]
    require_mergeable(config.store, config.into)
    conflicts = 0
    for root in config.store:
        found = copy_store(root, config.into, actors=actors, limit=config.limit, offline=config.offline)
        say(f"{found['new']} episodes copied from {root} into {config.into}, {found['known']} were there already")
        conflicts += found["conflict"]
    if conflicts:
        say(
            f"{conflicts} episodes have the UUID of one there with other content or another mark: they are in "
            f"{config.into}/quarantine"
        )
    return 1 if conflicts else 0


def copy_store(
    root: Path, into: Path, *, actors: Collection[Behaviour], limit: int, offline: bool
) -> Mapping[str, int]:
    """Copies episodes from one store into another, as ``transfer`` says; returns how often each came out."""
    with EpisodeStore(root, read_only=True) as source, EpisodeStore(into, source.format) as sink:
        if source.unexplained:
            raise StoreError(source.unexplained)
        taken = transfer(source, sink, actors=actors, limit=limit, offline=offline)
        return Counter(track(taken, "copying", total=limit or len(source), console=Console(stderr=True)))


def _back_up(root: Path, config: Config) -> int:
    assert config.into is not None
    if config.action == "backup":
        done = back_up(root, config.into, link=config.link)
        segments = f"{done.segments} segments, {done.copied} of them new, {done.removed} given up since"
        say(f"{config.into}: {segments}; {done.landed} episodes that are in no segment yet")
        say("published networks are not in it: the trainer publishes its own again from its checkpoint; copy that, too")
        return 0
    restore(root, config.into)
    say(f"restored to {config.into}")
    return _verify(config.into, repair=False)


def _prune(root: Path, retention: RetentionConfig) -> int:
    with EpisodeStore(root, config=ReplayConfig(retention=retention)) as store:
        before = len(store)
        segments = store.retire()
        say(f"{segments} segments with {before - len(store)} episodes given up, {len(store)} episodes kept")
    return 0


_OF_A_SERVER = frozenset(
    (
        "labels_capacity",
        "labels_dropped",
        "labels_put",
        "labels_sampled",
        "limiter",
        "waiting_trainers",
        "waiting_updaters",
    )
)
"""What only the process that writes a store can tell of it."""


def _info(root: Path) -> int:
    with EpisodeStore(root, read_only=True) as store:
        for name, value in store.info().items():
            if name not in _OF_A_SERVER:
                say(f"{name:<24} {value if isinstance(value, str) else f'{value:,.1f}'.removesuffix('.0')}")
        outcomes: Counter[str] = Counter()
        chosen_by: Counter[str] = Counter()
        for episode in store.episodes():
            outcomes[episode.outcome.name.lower()] += 1
            chosen_by.update(Behaviour(value).name.lower() for value in episode.behaviour.tolist())
        unexplained = store.unexplained
    say(f"{'episodes served':<24} {outcomes.total():,}")
    say(f"{'outcomes':<24} {_counts(outcomes)}")
    say(f"{'actions chosen by':<24} {_counts(chosen_by)}")
    say(f"{'success':<24} {wilson(outcomes['success'], outcomes.total())}")
    if unexplained:
        say(unexplained)
    return int(bool(unexplained))


def _counts(counter: Counter[str]) -> str:
    return ", ".join(f"{name} {count}" for name, count in counter.most_common()) or "-"


def _show(root: Path, config: Config) -> int:
    number = config.episode.removeprefix("-").isdigit() and len(config.episode) < 32
    with EpisodeStore(root, read_only=True) as store:
        try:
            episode = store.read_episode(int(config.episode) if number else config.episode)
        except IndexError as error:
            raise StoreError(f"{root}: {error}") from error
    save_png(filmstrip(episode, f"{episode.uuid} {episode.outcome.name.lower()}", MAX_STEPS + 1), config.output)
    for line in _describe(episode):
        say(line)
    say(f"drawn in {config.output}")
    return 0


def _describe(episode: Episode) -> list[str]:
    head = [
        f"episode {episode.uuid} of {episode.collector}: {episode.outcome.name.lower()}, {episode.end.name.lower()}",
        f"policy version {episode.policy_version}, {dict(episode.metadata)}",
        "step  chosen by     x [m]  y [m]  z [m]  yaw sin  cos   close open end  reward",
    ]
    rows = []
    columns = (episode.actions, episode.behaviour, episode.is_intervention, episode.rewards)
    for step, (action, behaviour, taken_over, reward) in enumerate(
        zip(*(column.tolist() for column in columns), strict=True)
    ):
        x, y, z, sin, cos, *flags = action
        words = "  ".join(f"{flag:3.0f}" for flag in flags)
        name = Behaviour(behaviour).name.lower() + ("!" if taken_over else "")
        rows.append(
            f"{step:>4}  {name:<11} {x:+6.3f} {y:+6.3f} {z:+6.3f}   {sin:+5.2f} {cos:+5.2f} {words}  {reward:+.2f}"
        )
    if episode.is_intervention.any():
        rows.append(f"! a person took over: {int(episode.is_intervention.sum())} of {len(episode)} steps")
    return head + rows


def _verify(root: Path, *, repair: bool) -> int:
    if repair and (fmt := restore_format(root)) is not None:
        say(
            f"store.json written anew from a segment: {fmt.height}x{fmt.width} px, {fmt.codec}, store_id {fmt.store_id}"
            "; a backup with another one stays as it is, begin a new one"
        )
    try:
        with EpisodeStore(root, read_only=not repair) as store:
            report = store.verify(repair=repair)
    except StoreError:
        if not repair:
            raise
        rebuilt = rebuild_catalogue(root)
        say(f"catalogue rebuilt: {rebuilt.episodes} sealed and {rebuilt.landed} landed episodes")
        for note in rebuilt.notes:
            say(f"note: {note}")
        with EpisodeStore(root) as store:
            report = store.verify(repair=True)
        _tell(report, root, repaired=True)
        if rebuilt.whole and report.nothing_new:
            return 0
        say(
            f"not all was sound: {rebuilt.quarantined} sealed episodes are quarantined; "
            f"{rebuilt.set_aside} segments and pieces of the landing log are in {root}/quarantine; see the notes"
        )
        return 1
    return _tell(report, root, repaired=repair)


def _tell(report: VerifyReport, root: Path, *, repaired: bool) -> int:
    say(f"read {report.episodes} episodes, {report.frames} frames, {report.segments} segments")
    for name, episodes in (("damaged", report.damaged), ("quarantined", report.quarantined)):
        for each in episodes:
            say(f"{name}: episode {each.uuid} at row {each.first_position}: {each.reason}")
    for note in (*report.explained, *report.notes):
        say(f"note: {note}")
    if report.sound:
        say("everything matches its checksum")
        return 0
    if report.healed:
        served = "served again from now on" if repaired else "serve them again with --repair"
        say(f"{len(report.healed)} quarantined episodes are sound: {served}")
    if report.replaced:
        say(f"{report.replaced} damaged episodes were stored again since, and are served")
    if report.quarantined:
        say(
            f"{len(report.quarantined)} quarantined episodes, not served: where a copy has them, "
            f"`qtopt data merge --store COPY --into {root}` takes them from there"
        )
    for words, kept in report.left_out.items():
        say(f"left out: {words}; {f'kept in {kept}' if kept else 'kept aside when the store is next opened to write'}")
    if report.left_out:
        say(
            f"{len(report.left_out)} pieces of the landing log are no episode that can be served: damaged, or never "
            f"acknowledged. `qtopt data merge --store COPY --into {root}` takes from a copy what it has of them"
        )
    if report.unexplained:
        say(report.unexplained)
    if report.damaged:
        hint = "they are kept aside" if repaired else "keep them aside with --repair"
        say(f"{len(report.damaged)} damaged episodes: {hint}; all others are served")
    if report.notes:
        say(
            f"{len(report.notes)} damaged places that cost no further episode of this store, and that --repair does "
            "not mend: `qtopt data copy` makes a sound store of it, a backup has the files"
        )
    return 0 if report.nothing_new else 1
