"""The safety monitor of a cell: one judge of every command and of every report, with nothing behind it but numbers.

It does no I/O and starts nothing: whoever owns it calls it at every tick, carries out what it says, and writes what it
locks to ``latch_file``. The arm's process and the safety process each have one of their own.
"""

import math
import time
from collections.abc import Callable, Sequence

from qtopt.errors import RobotError
from robot_bridge.cell_file import CellFile
from robot_bridge.contracts import ArmMode, ArmState, Latch, MotionCommand, Reaction, Verdict
from robot_bridge.displacement import to_tool
from robot_bridge.safety import rules
from robot_bridge.safety.commands import CommandRules, Way, lead_out, straight_up
from robot_bridge.safety.facts import ALLOWED, CellFacts, Heartbeat, Phase, is_at_least, worst
from robot_bridge.safety.limits import BOX_TOLERANCE_M, OVERSPEED_FACTOR, OVERSPEED_S
from robot_bridge.safety.recovery import Recovery
from robot_bridge.safety.region import Point

_DESCENT_M = 0.001
"""A command that leads down by more than this is a descent; in an episode one that leads up by less."""
_TRACKING_M = 0.003
"""A fast motion that ends, or runs, at the height where slow ones begin may be measured so far below it."""
_WORSE_N = 8.0
"""A way out of a contact may begin with so much more force; what it makes worse ends it."""
_KEPT = 0.98
"""Of what was zeroed away, for each further time."""
_NO_REPORT = Verdict(Reaction.HOLD, "state_age", "no report from the arm yet")


class CellSafetyMonitor:
    """Judges commands and reports; satisfies ``robot_bridge.contracts.SafetyMonitor``.

    A STOP stays: no command passes until ``enter`` begins something new, the cause being gone. A LATCH stays until a
    person acknowledges it.

    Args:
        cell: the cell's limits.
        episodes_done: with this configuration, before now; see ``commissioning``.
        watched: whose silence counts.
        latched: what locked motion before this process began.
        stops: what was cleared without a person within the last hour, as ``Recovery`` has it.
        wall_time: seconds since the epoch, for people who read the latch.
    """

    def __init__(
        self,
        cell: CellFile,
        *,
        episodes_done: int = 0,
        watched: frozenset[Heartbeat] = frozenset({Heartbeat.COLLECTOR}),
        latched: Latch | None = None,
        stops: Sequence[tuple[int, Point]] = (),
        wall_time: Callable[[], float] = time.time,
    ) -> None:
        self._cell, self._watchdog, self._wall_time = cell, cell.watchdog, wall_time
        self.commands = CommandRules(cell)
        self._recovery = Recovery(cell.recovery, stops)
        self._beats: dict[Heartbeat, int | None] = dict.fromkeys(watched)
        self._episodes = episodes_done
        self._facts = CellFacts()
        self._phase = Phase.IDLE
        self._latch = latched
        self._stopped: Verdict | None = None
        self._fresh: Verdict | None = None  # of the newest report alone, whatever is locked
        self._report: ArmState | None = None  # the newest whose clock had advanced
        self._advanced_ns = 0
        self._over_since_ns: int | None = None
        self._was_ready = False
        self._descending = False
        self._borne_n = 0.0  # in a retreat: what presses may press on, but not harder
        self._way: Way | None = None
        self._zeroed_n: list[float] | None = None  # since the first time; None before that
        self._stop_reason: str | None = None  # why a person has to look at the present protective stop

    @property
    def latched(self) -> Latch | None:
        """What locks motion, if anything does."""
        return self._latch

    @property
    def phase(self) -> Phase:
        """What the cell is doing."""
        return self._phase

    @property
    def slow(self) -> bool:
        """Whether the cell is new under its present configuration."""
        return self._episodes < self._cell.limits.slow_episodes

    def enter(self, phase: Phase, now_ns: int) -> Verdict:
        """Begins something new; a STOP whose cause is gone is over, but for a retreat, which comes right after it.

        Returns what still forbids it, in which case nothing changes, or ALLOW.
        """
        if self._latch is not None:
            return _locked(self._latch)
        if phase in (Phase.EPISODE, Phase.TRANSIT):
            if self._fresh is None or self._report is None:
                return _NO_REPORT
            # The way home ends an episode whose policy is gone: that one would never be heard again.
            ends = phase is Phase.TRANSIT and self._fresh.rule == rules.POLICY_GONE
            if is_at_least(self._fresh, Reaction.STOP) and not ends:
                return self._fresh
            if self._phase is Phase.RETRACT and self._report.force_n >= self._cell.contact.retract_n:
                reason = f"{self._report.force_n:.0f} N press on the tool still"
                return Verdict(Reaction.STOP, rules.PRESSED, reason)
            self._stopped = None
        if phase is Phase.EPISODE:
            if self._facts.disk_free < self._cell.spool.min_free:
                reason = f"{self._facts.disk_free:.0%} of the spool's disk are free; no new episode"
                return Verdict(Reaction.HOLD, "disk", reason)
            self.beat(Heartbeat.POLICY, now_ns)
        self._phase, self._descending = phase, False
        pressed_n = self._report.force_n if self._report is not None else 0.0
        self._borne_n = pressed_n + _WORSE_N if phase is Phase.RETRACT else 0.0
        return ALLOWED

    def finish_episode(self) -> int:
        """Counts an episode that ended without a safety event; returns how many there were with this configuration."""
        self._episodes += 1
        return self._episodes

    def beat(self, source: Heartbeat, now_ns: int) -> None:
        """Notes that a watched process is alive; others are ignored."""
        if source in self._beats:
            self._beats[source] = now_ns

    def note(self, facts: CellFacts) -> None:
        """Takes the newest word on camera, gripper and disk."""
        self._facts = facts

    def may_move(self, state: ArmState, now_ns: int, *, descending: bool = False) -> Verdict:
        """Judges whether any command could be carried out now; who asks is alive, and counts as the policy's word."""
        if self._phase is Phase.EPISODE:
            self.beat(Heartbeat.POLICY, now_ns)
        found = self._take(self._judge(state, now_ns, descending=descending))
        if self._latch is not None:
            return _locked(self._latch)
        return self._stopped if self._stopped is not None and self._phase is not Phase.RETRACT else found

    def filter(self, command: MotionCommand, state: ArmState, now_ns: int) -> Verdict:
        """Judges a command against everything that is known; see ``SafetyMonitor.filter``."""
        rise_m = command.target.position_m[2] - state.pose.position_m[2]
        # Among objects whatever does not lead up may push one against another, or against a wall.
        descending = not rise_m >= (_DESCENT_M if self._phase is Phase.EPISODE else -_DESCENT_M)
        found = self.may_move(state, now_ns, descending=descending)
        if is_at_least(found, Reaction.HOLD):
            return found
        verdict = self._take(self.commands.judge(command, state, self._phase, slow=self.slow, way=self._way))
        if not is_at_least(verdict, Reaction.HOLD):
            self._descending = descending
            if not command.leads_out and self._phase is not Phase.RETRACT:
                self._note_way(command, state)
        return verdict

    def observe(self, state: ArmState | None, now_ns: int) -> Verdict:
        """Judges the newest report; see ``SafetyMonitor.observe``."""
        found = self._take(self._judge(state, now_ns, descending=self._descending))
        return _locked(self._latch) if self._latch is not None else found

    def lead_out(self, state: ArmState, *, under_way: bool) -> MotionCommand:
        """Returns the slow way out of a contact: up, and for a tool ``under_way`` a little back, as it came."""
        way = self._way if under_way else None
        return lead_out(state, way, self._cell.contact.retract_m, self._cell.limits.slow_speed_m_s)

    def step_back(self, state: ArmState, step_m: float) -> MotionCommand:
        """Returns a short way out of what pressed from aside: so far back, as the tool came, and so far up."""
        return lead_out(state, self._way, step_m, self._cell.limits.slow_speed_m_s)

    def is_borne(self, state: ArmState) -> bool:
        """Whether as much presses on the tool from below, or from above, as ends a descent."""
        return state.wrench is not None and abs(state.wrench[2]) >= self._cell.contact.descend_n

    def is_free(self, state: ArmState) -> bool:
        """Whether less presses on the tool than ends a descent; always so without a force report."""
        return state.force_n < self._cell.contact.descend_n

    def was_zeroed(self, before_n: Point | None, after_n: Point | None) -> str:
        """Notes what the zeroing of a hanging tool's force took away [N]; returns why nothing may move now, if so.

        A cable that pulls a little more from one episode to the next would hide as much from the contact rules. What
        was taken away since the first time must therefore sum up to less than what sends the tool up. What is long ago
        counts less and less, or the noise of a sensor would grow to that, too.
        """
        if before_n is None or after_n is None:
            return ""
        if self._zeroed_n is None:
            self._zeroed_n = [0.0, 0.0, 0.0]
        else:
            forces = zip(self._zeroed_n, before_n, after_n, strict=True)
            self._zeroed_n = [_KEPT * so_far + had - has for so_far, had, has in forces]
        sum_n, most_n = math.hypot(*self._zeroed_n), self._cell.contact.retract_n
        if sum_n < most_n:
            return ""
        return (
            f"{sum_n:.0f} N more than at the start pull at a tool that should hang free, expected below {most_n:g} N: "
            "see whether a cable or a hose holds it, or what it carries"
        )

    def may_recover(self, state: ArmState, now_ns: int) -> Verdict:
        """Returns ALLOW, with the first motion afterwards, where a protective stop may be cleared without a person.

        The owner then calls ``Arm.recover``, enters ``Phase.RETRACT``, sends the motion, and begins anew.
        """
        if self._latch is not None:
            return _locked(self._latch)
        if state.mode not in rules.RECOVERABLE_MODES or self._stop_reason != "":
            return Verdict(Reaction.HOLD, "recovery", "there is no protective stop to recover from")
        obstacle = self._recovery.obstacle(state, now_ns)
        if obstacle:
            return Verdict(Reaction.HOLD, "recovery", obstacle)
        recovery = self._cell.recovery
        rise = straight_up(state, recovery.rise_m, recovery.rise_speed_m_s)
        return Verdict(Reaction.ALLOW, "recovery", "cleared without a person", rise)

    def acknowledge(self, operator: str, reason: str) -> None:
        """Unlocks motion in a person's name, the arm standing idle; call it after ``Arm.recover``.

        Raises:
            RobotError: nobody's name or no reason is given, or the cause is still there.
        """
        if not operator.strip() or not reason.strip():
            raise RobotError("an acknowledgement needs the operator's name and a reason")
        if self._latch is None:
            return
        if self._fresh is None or self._fresh is _NO_REPORT:
            raise RobotError(f"still locked ({self._latch.reason}): no report from the arm")
        if is_at_least(self._fresh, Reaction.STOP):
            raise RobotError(f"still locked: {self._fresh.rule}: {self._fresh.reason}")
        self._latch = self._stopped = None
        self._phase = Phase.IDLE
        self._was_ready = self._descending = False

    def _note_way(self, command: MotionCommand, state: ArmState) -> None:
        start, end = to_tool(state.pose), to_tool(command.target, to_tool(state.pose).yaw_rad)
        self._way = Way(state.pose.position_m, start.yaw_rad, end.z_m - start.z_m > _DESCENT_M)

    def _take(self, verdict: Verdict) -> Verdict:
        if verdict.reaction is Reaction.LATCH and self._latch is None:
            self._latch = Latch(verdict.rule, verdict.reason, self._wall_time())
        elif verdict.reaction is Reaction.STOP and self._stopped is None:
            self._stopped = verdict
        return verdict

    def _judge(self, state: ArmState | None, now_ns: int, *, descending: bool) -> Verdict:
        if state is None:
            verdict = _NO_REPORT
        else:
            verdict = self._judge_report(state, now_ns, descending=descending)
            others = rules.heartbeats(self._beats, self._phase, self._watchdog, now_ns)
            verdict = worst(verdict, others, rules.devices(self._facts, self._phase, self._watchdog))
        self._fresh = verdict
        return verdict

    def _judge_report(self, state: ArmState, now_ns: int, *, descending: bool) -> Verdict:
        fault = rules.bad_report(state) or self._advance(state, now_ns)
        if fault:
            return Verdict(Reaction.LATCH, "bad_state", fault)
        return worst(
            rules.age((now_ns - self._advanced_ns) * 1e-9, self._watchdog),
            self._mode(state, now_ns),
            self._place(state),
            self._contact(state, descending=descending),
            self._speed(state, now_ns),
            rules.pause(state, self._cell.limits),
        )

    def _advance(self, state: ArmState, now_ns: int) -> str:
        before = self._report
        if before is not None:
            elapsed_s = state.t_controller_s - before.t_controller_s
            if elapsed_s < -rules.RESTART_S:
                self._report = None
                return f"the controller's clock fell back by {-elapsed_s:.1f} s; did it start anew?"
            if elapsed_s <= 0.0:
                return ""
        self._report, self._advanced_ns = state, min(state.t_host_ns, now_ns)
        return rules.jump(before, state, self._cell.limits) if before is not None else ""

    def _mode(self, state: ArmState, now_ns: int) -> Verdict:
        verdict = rules.mode(state, was_ready=self._was_ready)
        if state.mode not in rules.RECOVERABLE_MODES:
            self._stop_reason = None
            if not verdict.rule:
                self._was_ready = True
                if state.mode is ArmMode.MOVING:
                    self.beat(Heartbeat.POLICY, now_ns)
            return verdict
        if self._stop_reason is None:
            self._stop_reason = self._recovery.note(state.pose.position_m, now_ns)
        if self._stop_reason:
            return Verdict(Reaction.LATCH, verdict.rule, f"{verdict.reason}; {self._stop_reason}")
        self._was_ready = False  # it becomes ready again step by step, when it is cleared
        return Verdict(Reaction.STOP, verdict.rule, verdict.reason)

    def _place(self, state: ArmState) -> Verdict:
        outside_m = self.commands.region.outside_m(state.pose.position_m)
        if outside_m <= BOX_TOLERANCE_M:
            return ALLOWED
        place = tuple(round(value, 4) for value in state.pose.position_m)
        reason = f"the tool is at {place}, {outside_m * 1e3:.0f} mm outside of where it may be; lead it back by hand"
        return Verdict(Reaction.LATCH, "box", reason)

    def _contact(self, state: ArmState, *, descending: bool) -> Verdict:
        contact, force_n = self._cell.contact, state.force_n
        if force_n < contact.descend_n:  # the mildest of the three
            return ALLOWED
        reason = f"{force_n:.0f} N press on the tool"
        if force_n >= contact.latch_n:
            return Verdict(Reaction.LATCH, "contact_latch", reason)
        if force_n >= max(contact.retract_n, self._borne_n):
            return Verdict(Reaction.STOP, rules.PRESSED, reason, self.lead_out(state, under_way=True))
        if state.wrench is None or not descending or self._phase is Phase.RETRACT:
            return ALLOWED
        if self.is_borne(state):
            return Verdict(Reaction.HOLD, rules.TOUCHED, f"{abs(state.wrench[2]):.0f} N bear the tool")
        # Objects are pushed aside with less, and a tool that comes down between them rubs.
        aside_n = math.hypot(*state.wrench[:2])
        if aside_n >= contact.press_n and self._phase is Phase.EPISODE:
            return Verdict(Reaction.HOLD, rules.FROM_ASIDE, f"{aside_n:.0f} N press on the tool from aside")
        return ALLOWED

    def _speed(self, state: ArmState, now_ns: int) -> Verdict:
        x, y, z, a, b, c = state.twist
        speed, turn = math.hypot(x, y, z), math.hypot(a, b, c)
        limit = self.commands.speed_limit_m_s(state.pose.position_m[2] + _TRACKING_M, slow=self.slow)
        if speed <= OVERSPEED_FACTOR * limit and turn <= OVERSPEED_FACTOR * self._cell.limits.yaw_rate_rad_s:
            self._over_since_ns = None
            return ALLOWED
        if self._over_since_ns is None:
            self._over_since_ns = now_ns
        if (now_ns - self._over_since_ns) * 1e-9 < OVERSPEED_S:
            return ALLOWED
        reason = f"the tool moves at {speed:.3f} m/s and {turn:.2f} rad/s; {limit:g} m/s is allowed here"
        return Verdict(Reaction.STOP, "tcp_speed", reason)


def _locked(latch: Latch) -> Verdict:
    return Verdict(Reaction.LATCH, latch.rule, latch.reason)
