"""What a cell does now, read from the memory that its processes share; nothing is connected."""

import os

from qtopt.apps.process import StopSignal, say
from qtopt.apps.robot import Status
from robot_bridge.cell.places import Places, Running
from robot_bridge.cell.processes import told_lock
from robot_bridge.cell.records import Report, speed_m_s, unpack_report
from robot_bridge.cell.shared import Board, Member
from robot_bridge.cell_file import CellFile, load_cell_file
from robot_bridge.contracts import Latch
from robot_bridge.spool import QUARANTINE, episode_files

_LATELY_S = 1.0


def main(config: Status) -> int:
    """Shows the state once, or every second."""
    cell = load_cell_file(config.cell)
    places = Places(cell)
    stop = StopSignal()
    while True:
        for line in describe(cell, places):
            say(line)
        if not config.watch or stop.wait(1.0):
            return 0
        say("")


def describe(cell: CellFile, places: Places) -> list[str]:
    """Returns what there is to say, a line each."""
    latch, running = places.latched(), places.running()
    waiting, aside = len(episode_files(cell.spool.dir)), len(episode_files(cell.spool.dir / QUARANTINE))
    lines = [
        f"cell       {cell.cell}, configuration {cell.config_hash[:12]}, {places.episodes_done()} episodes with it",
        f"motion     {_motion(latch, locked_in_memory(running))}",
        f"spool      {waiting} episodes wait in {cell.spool.dir}",
        *[f"set aside  {aside} episodes in {QUARANTINE} there, which cannot be delivered; the collector's log says why"]
        * bool(aside),
    ]
    if running is None:
        return [*lines, f"processes  none noted in {places.root}"]
    return lines + _living(running)


def _motion(latch: Latch | None, told: Latch | None) -> str:
    if latch is not None:
        return f"LOCKED by {latch.rule}: {latch.reason}"
    if told is not None:
        return f"LOCKED by {told.rule}: {told.reason}; acknowledged just now, or not on the disk yet"
    return "free"


def _living(running: Running) -> list[str]:
    board = _open_board(running)
    if board is None:
        return [f"processes  the collector {running.collector} ends, or belongs to somebody else"]
    try:
        beats = ", ".join(f"{member.name.lower()} {_age(board.silence_s(member))}" for member in Member)
        lines = [f"processes  last signs of life: {beats}"]
        record = board.arm.newest()
        if record is None:
            return lines
        report, silence_s = unpack_report(record), board.silence_s(Member.ARM)
        if silence_s is None or silence_s > _LATELY_S:
            lines.append(f"arm        no report any more, the last {_age(silence_s)}; what it told then:")
        if report.arm is not None:
            x_m, y_m, z_m = report.arm.pose.position_m
            force = "" if report.arm.wrench is None else f", {sum(f * f for f in report.arm.wrench[:3]) ** 0.5:.0f} N"
            lines.append(
                f"arm        {report.arm.mode.value}, x {x_m:.3f} y {y_m:.3f} z {z_m:.3f} m, "
                f"{speed_m_s(report.arm):.3f} m/s{force}"
            )
        if report.gripper is not None:
            fault = f", FAULT {report.gripper.fault}" if report.gripper.fault else ""
            lines.append(f"gripper    {1000 * report.gripper.width_m:.1f} mm{fault}")
        return lines + ([f"last       {report.note}"] if report.note else [])
    finally:
        board.close()


def newest_report(running: Running | None) -> Report | None:
    """Returns what the arm's process of a running cell wrote last; None where nothing came lately."""
    board = None if running is None else _open_board(running)
    if board is None:
        return None
    try:
        record, silence_s = board.arm.newest(), board.silence_s(Member.ARM)
        return None if record is None or silence_s is None or silence_s > _LATELY_S else unpack_report(record)
    finally:
        board.close()


def locked_in_memory(running: Running | None) -> Latch | None:
    """Returns what a process of a running cell says locks motion, written or not; None where none does."""
    board = None if running is None else _open_board(running)
    if board is None:
        return None
    try:
        return told_lock(board)
    finally:
        board.close()


def _open_board(running: Running) -> Board | None:
    """Returns the memory that a running cell's processes share; None where its collector is gone or not ours."""
    try:
        return Board(os.open(f"/proc/{running.collector}/fd/{running.board_fd}", os.O_RDWR))
    except OSError:
        return None


def _age(silence_s: float | None) -> str:
    return "never" if silence_s is None else f"{silence_s:.2f} s ago"
