"""A cell's limits tried on paper: scripted episodes through displacement layer and monitor; nothing is opened."""

from collections import Counter
from typing import Final

import numpy as np

from qtopt.agent.exploration import ScriptedPolicy
from qtopt.apps.process import say
from qtopt.specs import TERMINATE
from qtopt.types import Observation
from robot_bridge.cell.robot import TURN_RAD
from robot_bridge.cell_file import CellFile, cell_config
from robot_bridge.contracts import ArmMode, ArmState, MotionCommand, Reaction
from robot_bridge.displacement import limit_action, to_pose, waypoints
from robot_bridge.registry import resolve
from robot_bridge.robot import ToolPose
from robot_bridge.safety.facts import CellFacts, Phase, is_at_least
from robot_bridge.safety.monitor import CellSafetyMonitor

_EPISODES: Final = 20
_STEP_NS: Final = 1_000_000_000
_WORDS: Final = {"allow": "allowed as they are", "clamp": "made slower or shorter by the limits, as near the floor"}


def dry_run(cell: CellFile, seed: int) -> int:
    """Runs twenty scripted episodes without an arm; returns 0, or 4 where the monitor refused a step.

    Raises:
        ConfigError: the file names a driver, or an option of one, that there is not.
    """
    resolve(cell)
    config, rng, policy = cell_config(cell), np.random.default_rng(seed), ScriptedPolicy()
    verdicts: Counter[str] = Counter()
    for _ in range(_EPISODES):
        monitor = CellSafetyMonitor(cell, watched=frozenset())
        monitor.note(CellFacts())
        low, high = np.array(config.limits.low_m), np.array(config.limits.high_m)
        x_m, y_m = rng.uniform(low[:2], high[:2]).tolist()
        tool, closed = ToolPose(x_m, y_m, config.floor_z_m + config.start_height_m[0], cell.home.yaw_rad), False
        policy.begin_episode(rng)
        now_ns = _STEP_NS
        monitor.observe(_state(tool, now_ns), now_ns)
        monitor.enter(Phase.EPISODE, now_ns)
        for _ in range(config.max_steps):
            image = np.zeros((16, 16, 3), np.uint8)
            decision = policy.select(Observation(image, closed, tool.z_m - config.floor_z_m))
            executed, target = limit_action(decision.action, tool, config.limits)
            if executed[TERMINATE]:
                break
            limits, refused = cell.limits, False
            for leg in waypoints(tool, target, cell.bin.floor_z_m + limits.slow_height_m, TURN_RAD):
                command = MotionCommand(to_pose(leg), limits.speed_m_s, limits.accel_m_s2, limits.yaw_rate_rad_s)
                verdict = monitor.filter(command, _state(tool, now_ns), now_ns)
                verdicts[verdict.reaction.value] += 1
                refused = is_at_least(verdict, Reaction.HOLD)
                if refused:
                    say(f"{verdict.reaction.value} by {verdict.rule}: {verdict.reason}")
                    break
                tool, now_ns = leg, now_ns + _STEP_NS
            if refused:
                break
    said = ", ".join(f"{n} {_WORDS.get(what, what)}" for what, n in sorted(verdicts.items()))
    say(f"{_EPISODES} scripted episodes on paper, motions: {said}")
    return 4 if any(verdicts[each.value] for each in (Reaction.HOLD, Reaction.STOP, Reaction.LATCH)) else 0


def _state(tool: ToolPose, now_ns: int) -> ArmState:
    still = (0.0, 0.0, 0.0, 0.0, 0.0, 0.0)
    return ArmState(now_ns, now_ns / 1e9, to_pose(tool), still, None, (), ArmMode.READY)
