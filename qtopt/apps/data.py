"""A look into a store: what is in it, whether it is sound, what an episode looked like; and copies of it."""

from collections import Counter
from collections.abc import Collection
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Literal

import tyro
from rich.console import Console
from rich.progress import track

from qtopt.apps.process import say
from qtopt.config import STRICT
from qtopt.errors import ConfigError, StoreError
from qtopt.loops.filmstrip import filmstrip, save_png
from qtopt.loops.metrics import wilson
from qtopt.loops.transfer import transfer
from qtopt.replay import EpisodeStore, VerifyReport, rebuild_catalogue
from qtopt.specs import MAX_STEPS
from qtopt.types import Behaviour, Episode


@dataclass(frozen=True)
class Config:
    """Looks into an episode store: info, verify, show; or copies episodes out of it.

    Attributes:
        action: ``info`` says what is in it, ``verify`` reads and checks every byte, ``show`` draws an episode,
            ``copy`` appends its episodes to another store.
        store: directory of the store, or of the run that it belongs to.
        episode: with show, its UUID or its number from 0; negative numbers count from the end.
        output: with show, the PNG file to write.
        repair: with verify, keep damaged episodes aside, and rebuild the catalogue where it is lost; nobody else may
            have the store open.
        into: with copy, the store that is appended to; made if it is not there. What it has already is left out.
        actors: with copy, only episodes of the script, of the learned policy with noise, without (greedy), or of
            people; empty copies all.
        limit: with copy, most episodes; 0 for all.
        offline: with copy, mark them as offline data (see ``--replay.sampler.offline-share``).
    """

    __pydantic_config__ = STRICT

    action: Annotated[Literal["info", "verify", "show", "copy"], tyro.conf.Positional]
    store: Path
    episode: str = "-1"
    output: Path = Path("episode.png")
    repair: bool = False
    into: Path | None = None
    actors: tuple[Literal["scripted", "noise", "greedy", "human", "random"], ...] = ()
    limit: int = 0
    offline: bool = False

    def __post_init__(self) -> None:
        if (self.action == "copy") != (self.into is not None):
            raise ConfigError(f"found {self.action} {'with' if self.into else 'without'} --into; copy goes with --into")
        if self.limit < 0:
            raise ConfigError(f"limit is {self.limit}, expected 0 or more")
        if self.repair and self.action != "verify":
            raise ConfigError(f"--repair goes with verify, found {self.action}")


def main(config: Config) -> int:
    """Does what was asked; verify returns 1 when it found damage."""
    root = store_of(config.store)
    if config.action == "copy":
        return _copy(root, config)
    if config.action == "info":
        return _info(root)
    if config.action == "show":
        return _show(root, config)
    return _verify(root, repair=config.repair)


def store_of(path: Path) -> Path:
    """Returns the store at ``path``: itself, or that of a run's directory."""
    return path / "store" if (path / "store" / "store.json").exists() else path


def _copy(root: Path, config: Config) -> int:
    assert config.into is not None
    actors = [Behaviour[name.upper()] for name in config.actors]
    new, known = copy_store(root, config.into, actors=actors, limit=config.limit, offline=config.offline)
    say(f"{new} episodes copied into {config.into}, {known} were there already")
    return 0


def copy_store(root: Path, into: Path, *, actors: Collection[Behaviour], limit: int, offline: bool) -> tuple[int, int]:
    """Copies episodes from one store into another, as ``transfer`` says; returns how many were new and were known."""
    with EpisodeStore(root, read_only=True) as source, EpisodeStore(into, source.format) as sink:
        taken = transfer(source.episodes(), sink, actors=actors, limit=limit, offline=offline)
        new = list(track(taken, "copying", total=limit or len(source), console=Console(stderr=True)))
    return sum(new), len(new) - sum(new)


def _info(root: Path) -> int:
    with EpisodeStore(root, read_only=True) as store:
        for name, value in store.info().items():
            say(f"{name:<24} {value:,.10g}" if isinstance(value, float) else f"{name:<24} {value}")
        outcomes: Counter[str] = Counter()
        chosen_by: Counter[str] = Counter()
        for episode in store.episodes():
            outcomes[episode.outcome.name.lower()] += 1
            chosen_by.update(Behaviour(value).name.lower() for value in episode.behaviour.tolist())
    say(f"{'outcomes':<24} {_counts(outcomes)}")
    say(f"{'actions chosen by':<24} {_counts(chosen_by)}")
    say(f"{'success':<24} {wilson(outcomes['success'], outcomes.total())}")
    return 0


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
    return _tell(report, repaired=repair)


def _tell(report: VerifyReport, *, repaired: bool) -> int:
    say(f"read {report.episodes} episodes, {report.frames} frames, {report.segments} segments")
    for damaged in report.damaged:
        say(f"damaged: episode {damaged.uuid} at row {damaged.first_position}: {damaged.reason}")
    for note in report.notes:
        say(f"note: {note}")
    if report.sound:
        say("everything matches its checksum")
        return 0
    hint = "they are kept aside" if repaired else "keep them aside with --repair"
    say(f"{len(report.damaged)} damaged episodes: {hint}; all others are served")
    return 1
