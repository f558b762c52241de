"""The commands over a physical cell: ``qtopt robot check cell.toml`` and its like, one module each."""

import importlib
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, Literal

import tyro

from qtopt.apps.metrics import MetricsConfig
from qtopt.config import STRICT
from qtopt.errors import ConfigError
from qtopt.rpc.settings import ClientConfig

CellPath = Annotated[Path, tyro.conf.Positional]


@dataclass(frozen=True)
class Check:
    """Looks at everything that could be wrong, without any motion; the exit code says what kind of thing is.

    0: all is well; 2: the cell file; 3: something cannot be reached; 4: arm or cell are not in a safe state to begin;
    5: the camera; 6: success cannot be judged yet.

    Attributes:
        cell: the cell file.
        json: print one JSON object instead of the table.
        picture: writes there, as PNG, what the main camera sees, and ``[success] bin_region`` in it.
    """

    __pydantic_config__ = STRICT

    cell: CellPath
    json: bool = False
    picture: Path | None = None

    def __post_init__(self) -> None:
        if self.picture is not None and self.picture.suffix != ".png":
            raise ConfigError(f"picture is {self.picture}, expected a file whose name ends in .png")


@dataclass(frozen=True)
class Home:
    """Rises straight up and goes to the pose from which the camera sees the bin; the fingers stay as they are.

    Attributes:
        cell: the cell file.
    """

    __pydantic_config__ = STRICT

    cell: CellPath


@dataclass(frozen=True)
class Calibrate:
    """Measures what the cell file must know and prints the lines to put into it.

    Attributes:
        cell: the cell file.
        what: ``box``: lead the tool to the bin's corners by hand; ``gripper``: what closed, empty fingers report;
            ``success``: how much pictures of an untouched bin differ; ``latency``: how old the camera's pictures are,
            found from the arm's swings in view.
        repeats: closes, pairs of pictures, or swings; gripper wants 20 at least, success 50.
    """

    __pydantic_config__ = STRICT

    cell: CellPath
    what: Annotated[Literal["box", "gripper", "success", "latency"], tyro.conf.Positional]
    repeats: int = 50

    def __post_init__(self) -> None:
        if not 3 <= self.repeats <= 500:
            raise ConfigError(f"repeats is {self.repeats}, expected 3 to 500")


@dataclass(frozen=True)
class Collect:
    """Runs grasp episodes on the cell and delivers them; the arm stands and waits for a person after any lock.

    Attributes:
        cell: the cell file.
        server: where episodes go and policies come from (--server host:port).
        episodes: to collect; 0 collects until told to stop.
        policy: who chooses the actions: as the cell file says, the script, the server, or the person at the controls.
        teleop: with what a person takes over, or acts alone; demonstrations go into the same store.
        gamepad: the gamepad's device.
        dry_run: runs scripted episodes through limits and safety monitor without starting anything.
        name: stored with each episode; the cell's name without one.
        seed: of start poses and exploration.
        metrics: where Prometheus finds this process's figures.
    """

    __pydantic_config__ = STRICT

    cell: CellPath
    server: ClientConfig = field(default_factory=ClientConfig)
    episodes: int = 0
    policy: Literal["cell", "scripted", "learned", "person"] = "cell"
    teleop: Literal["none", "keyboard", "gamepad"] = "none"
    gamepad: Path = Path("/dev/input/js0")
    dry_run: bool = False
    name: str = ""
    seed: int = 0
    metrics: MetricsConfig = field(default_factory=MetricsConfig)

    def __post_init__(self) -> None:
        if self.episodes < 0:
            raise ConfigError(f"episodes is {self.episodes}, expected 0 or more")
        if self.policy == "person" and self.teleop == "none":
            raise ConfigError("--policy person needs --teleop keyboard or gamepad")


@dataclass(frozen=True)
class Status:
    """Shows what the cell does: arm, fingers, locks, the episodes that wait.

    Attributes:
        cell: the cell file.
        watch: show it again every second until interrupted.
    """

    __pydantic_config__ = STRICT

    cell: CellPath
    watch: bool = False


@dataclass(frozen=True)
class Estop:
    """Stops the arm by every way there is and locks motion; exit code 0 only if it was seen to stand.

    It is no replacement for the button on the wall.

    Attributes:
        cell: the cell file.
    """

    __pydantic_config__ = STRICT

    cell: CellPath


@dataclass(frozen=True)
class Ack:
    """Unlocks motion in a person's name, after that person has looked at the cell and removed the cause.

    Attributes:
        cell: the cell file.
        operator: who looked.
        reason: what was found and done.
    """

    __pydantic_config__ = STRICT

    cell: CellPath
    operator: str
    reason: str


@dataclass(frozen=True)
class ServeSim:
    """A simulated bin and arm behind a vendor's protocol, with camera and gripper; prints the cell file for it.

    Attributes:
        protocol: the vendor's, or the remote arm's.
        host: a loopback address of its own.
        output: writes the cell file there; standard output gets it otherwise.
        objects: in the bin.
        object_set: which ones.
        seed: of the sequence of bins.
        camera_px: height and width of the camera's pictures.
        fps: pictures a second.
        open_width_m: how far the Robotiq's fingers open; the plain simulator's open to 0.10.
        truth: records there, line by line, what the fingers really hold, for ``agreement``.
    """

    __pydantic_config__ = STRICT

    protocol: Literal["ur", "xarm", "http", "so101", "franka"] = "ur"
    host: str = "127.0.3.1"
    output: Path | None = None
    objects: int = 5
    object_set: Literal["train", "unseen", "other"] = "train"
    seed: int = 0
    camera_px: int = 240
    fps: float = 15.0
    open_width_m: float = 0.085
    truth: Path | None = None


@dataclass(frozen=True)
class Agreement:
    """Compares the labels of collected episodes with what ``serve-sim --truth`` recorded; prints one line of JSON.

    Attributes:
        store: of the server that took the episodes.
        truth: the records of the simulated cells, one file each.
    """

    __pydantic_config__ = STRICT

    store: Path
    truth: tuple[Path, ...]


@dataclass(frozen=True)
class Faults:
    """Makes everything go wrong with simulated cells, one after the other, and judges what the arm then really did.

    Attributes:
        protocols: of the cells; franka needs franky-sim (docs/drivers-franka.md).
        cases: by their names; none runs all.
        output: a directory for result.json; findings of other cases and cells that stand there stay.
        guide: a document whose table is written anew from it.
    """

    __pydantic_config__ = STRICT

    protocols: tuple[Literal["ur", "xarm", "http", "so101", "franka"], ...] = ("ur", "xarm", "http", "so101")
    cases: tuple[str, ...] = ()
    output: Path | None = None
    guide: Path | None = None


@dataclass(frozen=True)
class Soak:
    """Leaves a simulated UR cell alone with a collector and a server, and has something go wrong every 20 seconds.

    Afterwards every label is compared with what the simulated fingers really held.

    Attributes:
        minutes: how long.
        every_s: seconds from one fault to the next; 0 for none, and for grasps only.
        seed: of the bin, of the collector and of the order of faults.
        host: the simulated controller's address, for several cells at once.
        output: a directory for result.json.
    """

    __pydantic_config__ = STRICT

    minutes: float = 30.0
    every_s: float = 20.0
    seed: int = 0
    host: str = "127.0.96.10"
    output: Path | None = None

    def __post_init__(self) -> None:
        if self.minutes <= 0 or self.every_s < 0:
            raise ConfigError(f"minutes is {self.minutes} and every_s {self.every_s}, expected more than 0, 0 or more")


@dataclass(frozen=True)
class Transfer:
    """Runs a policy in the plain simulator, and over a simulated cell's whole path in the same scenes.

    Attributes:
        checkpoint: a checkpoint, a run's directory, the word pretrained, or what qtopt export wrote; it acts by ONNX
            Runtime in both.
        episodes: in each.
        seed: chooses the scenes.
        objects: in each bin.
        object_set: which ones.
        camera_px: height and width of the simulated camera's pictures.
        host: the simulated controller's address, for several runs at once.
        cells: simulated cells side by side, each on the next address; each wants two processors of its own.
        shard: which of ``shards`` parts of the episodes to run; None: all of them, one after the other unless there are
            several cells. Parts whose result is in the output directory are not run again, so a run that ended goes on.
        shards: parts in all.
        contact_n: forces on the tool [N] at which the cell ends a descent, ends a push to the side, retreats, and is
            locked. The plain simulator's motors press down with 40 N and sideways with 60 N at most; a stiff arm told
            to stop at 25 N stands at some 40 N. A cell with the defaults of 15, 22.5, 30 and 60 N ends some motions
            earlier.
        retract_m: how far up such a retreat leads [m]; the plain simulator's tool stays where it was stopped.
        limits_of: a cell file whose speeds, steps and forces hold over the path, in place of the simulated cell's own
            and of ``contact_n`` and ``retract_m``: what a lab has that uses it.
        output: a directory for reports, pictures, what was really held (truth.jsonl), and result.json.
    """

    __pydantic_config__ = STRICT

    checkpoint: Path = Path("pretrained")
    episodes: int = 100
    seed: int = 0
    objects: int = 5
    object_set: Literal["unseen", "other"] = "unseen"
    camera_px: int = 240
    host: str = "127.0.97.10"
    cells: int = 1
    shard: int | None = None
    shards: int = 1
    contact_n: tuple[float, float, float, float] = (30.0, 40.0, 60.0, 95.0)
    retract_m: float = 0.01
    limits_of: Path | None = None
    output: Path = Path("outputs/transfer")

    def __post_init__(self) -> None:
        if self.episodes < 1:
            raise ConfigError(f"episodes is {self.episodes}, expected at least 1")
        if not 1 <= self.cells <= self.episodes:
            raise ConfigError(f"cells is {self.cells}, expected 1 to the number of episodes, {self.episodes}")
        if not 0 <= (self.shard or 0) < self.shards <= self.episodes or (self.cells > 1 and self.shard is not None):
            raise ConfigError(
                f"shard is {self.shard} of {self.shards}, with {self.cells} cells; expected 0 to shards - 1 of as many "
                "shards as episodes at most, and one cell with a single shard"
            )

    @property
    def parts(self) -> int:
        """How many parts the episodes are run in, each by a process of its own; 1: by this one."""
        if self.shard is not None:
            return 1
        return max(self.shards, self.cells)


Config = (
    Annotated[Check, tyro.conf.subcommand("check")]
    | Annotated[Home, tyro.conf.subcommand("home")]
    | Annotated[Calibrate, tyro.conf.subcommand("calibrate")]
    | Annotated[Collect, tyro.conf.subcommand("collect")]
    | Annotated[Status, tyro.conf.subcommand("status")]
    | Annotated[Estop, tyro.conf.subcommand("estop")]
    | Annotated[Ack, tyro.conf.subcommand("ack")]
    | Annotated[ServeSim, tyro.conf.subcommand("serve-sim")]
    | Annotated[Agreement, tyro.conf.subcommand("agreement")]
    | Annotated[Faults, tyro.conf.subcommand("faults")]
    | Annotated[Soak, tyro.conf.subcommand("soak")]
    | Annotated[Transfer, tyro.conf.subcommand("transfer")]
)

_MODULES = {
    Check: "check",
    Home: "home",
    Calibrate: "calibrate",
    Collect: "collect",
    Status: "status",
    Estop: "estop",
    Ack: "ack",
    ServeSim: "serve_sim",
    Agreement: "agreement",
    Faults: "faults",
    Soak: "soak",
    Transfer: "transfer",
}


def main(config: object) -> int:
    """Runs the command that was chosen; returns its exit code."""
    module = importlib.import_module(f"qtopt.apps.robot.{_MODULES[type(config)]}")
    code: int = module.main(config)
    return code
