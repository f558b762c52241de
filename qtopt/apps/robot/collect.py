"""A collector's process on a physical cell: the loop of every collector, over another environment."""

import contextlib

import numpy as np

from qtopt.apps.collected import Figures
from qtopt.apps.metrics import expose
from qtopt.apps.process import begin, logger
from qtopt.apps.reporting import Reporting
from qtopt.apps.robot import Collect
from qtopt.apps.robot.dry_run import dry_run
from qtopt.apps.robot.policies import choose, open_device
from qtopt.errors import RobotError, UnkeptLock
from qtopt.loops.collect import CollectLoopConfig, collect
from qtopt.loops.outbox import Outbox
from qtopt.rpc.connection import connect
from robot_bridge.cell.open import PhysicalCell
from robot_bridge.cell_file import load_cell_file
from robot_bridge.spool import Spool


def main(config: Collect) -> int:
    """Runs a collector until it is told to stop or has collected its episodes."""
    cell = load_cell_file(config.cell)
    if config.dry_run:
        return dry_run(cell, config.seed)
    name = config.name or cell.cell
    stop = begin(f"collector/{name}")
    with contextlib.ExitStack() as parts:
        spool = parts.enter_context(contextlib.closing(Spool(cell.spool.dir, round(cell.spool.max_gb * 2**30))))
        remote = parts.enter_context(connect(config.server))
        device = open_device(config, parts)
        outbox = Outbox(remote.replay, spool)
        environment = PhysicalCell(config.cell, remote.image_size[0], stop, config.seed, idle=outbox.flush)
        parts.callback(environment.close)
        environment.robot.goes_over = device is None  # a person sees what is in the way, and lets go to stop
        rng = np.random.default_rng([config.seed, spool.openings])
        figures = Figures()
        reporting = Reporting(remote.monitor, f"collector/{name}", figures, disk=cell.spool.dir)
        parts.enter_context(expose(config.metrics, reporting.role, reporting.figures))
        first, follower = choose(config, cell, remote, device)
        try:
            for turn in collect(
                environment,
                first,
                follower,
                outbox,
                rng,
                config=CollectLoopConfig(episodes=config.episodes),
                name=name,
                facts={"cell": cell.cell, "config_hash": cell.config_hash},
                stop=stop,
            ):
                reporting.take(turn)
                logger().info(
                    "episode",
                    robot=name,
                    episode=turn.episode.uuid,
                    policy_version=turn.episode.policy_version,
                    outcome=turn.episode.outcome.name.lower(),
                    steps=len(turn.episode),
                    waiting=turn.waiting,
                )
        except RobotError as error:
            if not stop() or isinstance(error, UnkeptLock):
                raise
        environment.close()  # first: a slow server holds up what follows
        outbox.flush(limit=1000)
    logger().info("collector ended", episodes=int(figures.figures()["episodes"]), waiting=outbox.waiting)
    return 0
