"""Pictures of a run, for people: how well it learned, what Q is worth, what it does, how it searches."""

from collections.abc import Callable
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Annotated, Literal

import tyro
from PIL import Image

from qtopt.agent.cem import CemConfig
from qtopt.apps.pictures import episodes, tables
from qtopt.apps.process import limit_threads, say
from qtopt.config import STRICT
from qtopt.errors import CheckpointError, ConfigError, QtOptError
from qtopt.loops.checkpoints import find_checkpoint
from qtopt.loops.figures.calibration import draw_calibration, predictions_of
from qtopt.loops.figures.curve import draw_curve
from qtopt.loops.figures.film import reel, save_animation, strips
from qtopt.loops.figures.search import draw_search
from qtopt.loops.figures.style import DPI, save_image
from qtopt.loops.report import read_report
from sim.config import SimConfig

Kind = Literal["curve", "calibration", "film", "cem", "all"]


@dataclass(frozen=True)
class Config:
    """Draws figures as PNG, and episodes as an animation.

    Attributes:
        kind: ``curve`` success against grasps, of runs; ``calibration`` Q against outcome, of reports; ``film``
            episodes on unseen objects; ``cem`` where the search looked; ``all`` of them, of one run.
        paths: with curve and all, directories of runs; with calibration, reports of qtopt eval.
        checkpoint: with film and cem, a checkpoint, or a run's directory for its newest one.
        results: with curve, JSON files of final evaluations, drawn as points.
        output: file to write; with all, directory. By default named after the kind.
        scale: of the curve's x axis.
        bins: of the calibration, groups of equal size.
        episodes: with film and cem, episodes to choose from.
        shown: with film, episodes shown, half of them failures where there are enough; with cem, scenes.
        seed: chooses scenes and chance, as in qtopt eval.
        size_px: of the pictures that a spectator sees.
        finer: pictures are rendered this many times larger and averaged.
        fps: of the animation [1/s].
        dpi: of figures; 120 makes them 900 to 1200 px wide.
        threads: threads of torch.
        sim: the simulated cell; its objects are unseen ones, always.
        cem: sizes of the search for the best action.
    """

    __pydantic_config__ = STRICT

    kind: Annotated[Kind, tyro.conf.Positional]
    paths: Annotated[tuple[Path, ...], tyro.conf.Positional] = ()
    checkpoint: Path | None = None
    results: tuple[Path, ...] = ()
    output: Path | None = None
    scale: Literal["log", "linear"] = "log"
    bins: int = 8
    episodes: int = 24
    shown: int = 6
    seed: int = 0
    size_px: int = 384
    finer: int = 1
    fps: float = 12.0
    dpi: int = DPI
    threads: int = 1
    sim: SimConfig = field(default_factory=SimConfig)
    cem: CemConfig = field(default_factory=CemConfig)

    def __post_init__(self) -> None:
        if self.kind in ("film", "cem"):
            if self.checkpoint is None:
                raise ConfigError(f"figures {self.kind}: found no checkpoint, expected --checkpoint PATH")
            if self.paths:
                raise ConfigError(f"figures {self.kind}: found {self.paths[0]}, expected --checkpoint PATH alone")
        elif not self.paths and not (self.kind == "curve" and self.results):
            what = "reports, eval/*.json" if self.kind == "calibration" else "the directory of a run"
            raise ConfigError(f"figures {self.kind}: found nothing to draw, expected {what}, after it")
        elif self.kind == "all" and len(self.paths) > 1:
            raise ConfigError(f"figures all: found {len(self.paths)} runs, expected one; draw several with curve")
        for name in ("bins", "episodes", "shown", "finer", "dpi", "threads"):
            if getattr(self, name) < 1:
                raise ConfigError(f"figures: {name} is {getattr(self, name)}, expected at least 1")
        if self.size_px < 160:
            raise ConfigError(f"figures: size_px is {self.size_px}, expected at least 160, so that captions fit")
        if not 1 <= self.fps <= 30:
            raise ConfigError(f"figures: fps is {self.fps:g}, expected 1 to 30")


def main(config: Config) -> int:
    """Draws what was asked for; 1 when some of ``all`` could not be drawn."""
    limit_threads(config.threads)
    output = config.output or Path(f"{config.kind}.png" if config.kind != "all" else "pictures")
    if config.kind == "curve":
        _curve(config, output)
    elif config.kind == "calibration":
        _calibration(config, config.paths, output)
    elif config.kind == "film":
        _film(config, output)
    elif config.kind == "cem":
        _cem(config, output)
    else:
        return _all(config, output)
    return 0


def _curve(config: Config, output: Path) -> None:
    curves = [tables.read_curve(path) for path in config.paths]
    results = [tables.read_result(path) for path in config.results]
    draw_curve(curves, results, output, scale=config.scale, dpi=config.dpi)
    say(f"drawn in {output}")


def _calibration(config: Config, paths: tuple[Path, ...], output: Path) -> None:
    predictions = predictions_of([read_report(path) for path in paths])
    draw_calibration(predictions, output, bins=config.bins, dpi=config.dpi)
    say(f"Brier score {predictions.brier:.4f}, calibration error {predictions.calibration_error(config.bins):.4f}")
    say(f"drawn in {output}")


def _film(config: Config, output: Path) -> None:
    takes = episodes.film(_stage(config))
    save_image(Image.fromarray(strips(takes)), output)
    animation = output.with_suffix(".webp")
    save_animation(reel(takes, config.fps), animation, config.fps)
    say(f"drawn in {output} and {animation}")


def _cem(config: Config, output: Path) -> None:
    stage = _stage(config)
    scenes = episodes.search(stage)
    title = f"The cross-entropy method at the first closing, unseen objects, step {stage.step:,}"
    draw_search(scenes, episodes.policy_camera(stage), output, title, config.dpi)
    say(f"drawn in {output}")


def _all(config: Config, output: Path) -> int:
    """Draws what a run has the data for, and says what is missing and why."""
    run = config.paths[0]
    film = replace(config, kind="film", paths=(), checkpoint=run)
    cem = replace(film, kind="cem", shown=min(3, config.shown))
    drawings: dict[str, Callable[[Path], None]] = {
        "curve.png": lambda path: _curve(config, path),
        "calibration.png": lambda path: _calibration(config, tables.learned_reports(run), path),
        "film.png": lambda path: _film(film, path),
        "cem.png": lambda path: _cem(cem, path),
    }
    missing: dict[Path, QtOptError] = {}
    for name, draw in drawings.items():
        try:
            draw(output / name)
        except (ConfigError, CheckpointError) as error:
            missing[output / name] = error
    if len(missing) == len(drawings):
        raise next(iter(missing.values()))
    for path, reason in missing.items():
        say(f"not drawn: {path}: {reason}")
    return 1 if missing else 0


def _stage(config: Config) -> episodes.Stage:
    return episodes.stage(
        find_checkpoint(config.checkpoint or Path()),
        config.sim,
        config.cem,
        episodes=config.episodes,
        shown=config.shown,
        seed=config.seed,
        size_px=config.size_px,
        finer=config.finer,
        fps=config.fps,
    )
