"""The rules about one report, each a function of the report and its limits; ``monitor`` keeps what they remember."""

import math
from collections.abc import Mapping

from robot_bridge.contracts import ArmMode, ArmState, Reaction, Verdict
from robot_bridge.safety.facts import ALLOWED, CellFacts, Heartbeat, Phase, worst
from robot_bridge.safety.limits import SafetyLimits, WatchdogLimits

FAR_M = 3.0
"""No tool point is so far from its base; a report that says so has its units wrong."""
JUMP_M = 0.020
"""Between two reports a tool may be seen to jump by this, besides what twice its speed limit explains."""
RESTART_S = 0.5
"""A controller's clock that falls back by more has started anew."""
POLICY_GONE = "policy_gone"
TOUCHED = "contact_descend"
"""A motion that led down has met something, which bears the tool."""
FROM_ASIDE = "contact_aside"
EASED = (TOUCHED, FROM_ASIDE)
"""What ends a motion, which an episode goes on from after a small step out of it."""
PRESSED = "contact_retract"
"""The rule that ends what presses on the tool from anywhere, and after which it is led out."""
_MOVING_MODES = frozenset(each for each in ArmMode if each.can_move)
_PERSON_MODES = (ArmMode.EMERGENCY_STOP, ArmMode.SAFEGUARD_STOP, ArmMode.FAULT)
RECOVERABLE_MODES = frozenset({ArmMode.PROTECTIVE_STOP, ArmMode.REFLEX})


def bad_report(state: ArmState) -> str:
    """Returns what makes a report unusable; empty for nothing."""
    position, quaternion = state.pose.position_m, state.pose.quaternion_xyzw
    (x, y, z), (a, b, c, d) = position, quaternion
    # A sum is finite only where each of its parts is; asked at every report.
    total = x + y + z + a + b + c + d + sum(state.twist) + sum(state.wrench or ()) + state.t_controller_s
    if not math.isfinite(total):
        return f"the arm reports what is not a number: pose {state.pose}, twist {state.twist}, wrench {state.wrench}"
    if not (-FAR_M <= x <= FAR_M and -FAR_M <= y <= FAR_M and -FAR_M <= z <= FAR_M):
        return f"the arm reports its tool at {position}, beyond {FAR_M} m: millimetres for metres?"
    length = math.hypot(a, b, c, d)
    if not 0.98 <= length <= 1.02:
        return f"the arm reports an orientation of length {length:.3f}, expected 1"
    return ""


def jump(before: ArmState, after: ArmState, limits: SafetyLimits) -> str:
    """Returns in words how the tool jumped between two reports; empty where it did not."""
    moved = math.dist(before.pose.position_m, after.pose.position_m)
    elapsed_s = after.t_controller_s - before.t_controller_s
    if moved <= JUMP_M + 2 * limits.speed_m_s * elapsed_s:
        return ""
    return f"the tool's pose jumped by {moved * 1e3:.0f} mm within {elapsed_s * 1e3:.0f} ms"


def age(age_s: float, limits: WatchdogLimits) -> Verdict:
    """Judges how long the controller's clock has stood still."""
    if age_s <= limits.hold_s:  # nearly always, and asked at every report; ``hold_after_s`` is no less
        return ALLOWED
    if age_s > limits.latch_s:
        return Verdict(Reaction.LATCH, "link_lost", f"nothing new from the arm for {age_s:.2f} s")
    if age_s > limits.stop_after_s:
        return Verdict(Reaction.STOP, "state_age", f"nothing new from the arm for {age_s:.3f} s")
    if age_s > limits.hold_after_s:
        return Verdict(Reaction.HOLD, "state_age", f"nothing new from the arm for {age_s:.3f} s")
    return ALLOWED


def mode(state: ArmState, *, was_ready: bool) -> Verdict:
    """Judges what the controller says of itself; ``was_ready``: it has already been fit to move."""
    if state.mode in _MOVING_MODES and state.program_running:
        return ALLOWED
    codes = f" (codes {dict(state.codes)})" if state.codes else ""
    if state.mode in _PERSON_MODES or state.mode in RECOVERABLE_MODES:
        return Verdict(Reaction.LATCH, state.mode.value, f"the arm is in {state.mode.value}{codes}")
    lost = Reaction.LATCH if was_ready else Reaction.HOLD
    if not state.mode.can_move:
        return Verdict(lost, "mode_lost" if was_ready else "not_ready", f"the arm is {state.mode.value}{codes}")
    return Verdict(lost, "program_stopped", f"the arm's program does not run{codes}; was it stopped at the pendant?")


def pause(state: ArmState, limits: SafetyLimits, cooled_k: float = 0.0) -> Verdict:
    """Judges temperature, whose limit is lower by ``cooled_k``, and the operator's slider."""
    hot, most = state.joint_temperature_c, limits.joint_temperature_c - cooled_k
    if hot is not None and not hot <= most:
        reason = f"a joint is at {hot:.0f} C, above {most:.0f} C"
        return Verdict(Reaction.HOLD, "temperature", reason)
    if not state.speed_scale >= limits.speed_scale_min:
        reason = f"the speed slider is at {state.speed_scale:.0%}, below {limits.speed_scale_min:.0%}"
        return Verdict(Reaction.HOLD, "speed_slider", reason)
    return ALLOWED


def heartbeats(beats: Mapping[Heartbeat, int | None], phase: Phase, limits: WatchdogLimits, now_ns: int) -> Verdict:
    """Judges the silence of each process that is watched; the policy's counts during an episode only."""
    verdict = ALLOWED
    for source, beat_ns in beats.items():
        if source is Heartbeat.POLICY and phase is not Phase.EPISODE:
            continue
        if beat_ns is None:
            found = Verdict(Reaction.HOLD, f"{source.value}_heartbeat", f"no word from the {source.value} yet")
        elif (silent_s := (now_ns - beat_ns) * 1e-9) <= _first_silence_s(source, limits):
            continue
        else:
            found = _silence(source, silent_s, limits)
        verdict = found if verdict is ALLOWED else worst(verdict, found)
    return verdict


def _silence(source: Heartbeat, silent_s: float, limits: WatchdogLimits) -> Verdict:
    """Judges a silence that is already longer than ``_first_silence_s``."""
    rule, reason = f"{source.value}_heartbeat", f"no word from the {source.value} for {silent_s:.2f} s"
    if source is Heartbeat.ARM:
        return Verdict(Reaction.LATCH, rule, reason)
    if source is Heartbeat.POLICY:
        if silent_s > limits.policy_home_s:
            return Verdict(Reaction.STOP, POLICY_GONE, f"{reason}; the episode is over")
        return Verdict(Reaction.HOLD, rule, reason)
    reaction = Reaction.STOP if silent_s > limits.collector_stop_s else Reaction.HOLD
    return Verdict(reaction, rule, reason)


def _first_silence_s(source: Heartbeat, limits: WatchdogLimits) -> float:
    if source is Heartbeat.ARM:
        return limits.arm_latch_s
    return limits.policy_hold_s if source is Heartbeat.POLICY else limits.collector_hold_s


def devices(facts: CellFacts, phase: Phase, limits: WatchdogLimits) -> Verdict:
    """Judges gripper and camera; the camera during an episode only."""
    if facts.gripper_fault:
        return Verdict(Reaction.STOP, "gripper", f"gripper: {facts.gripper_fault}; the fingers stay as they are")
    if phase is not Phase.EPISODE:
        return ALLOWED
    if facts.camera_age_s is not None:
        reason = f"the newest picture is {facts.camera_age_s:.2f} s old"
        if not facts.camera_age_s <= limits.camera_stop_s:
            return Verdict(Reaction.STOP, "camera_age", reason)
        if facts.camera_age_s > limits.camera_hold_s:
            return Verdict(Reaction.HOLD, "camera_age", reason)
        if facts.camera_age_s > limits.camera_warn_s and not facts.camera_fault:
            return Verdict(Reaction.ALLOW, "camera_age", reason)
    if facts.camera_fault:
        return Verdict(Reaction.HOLD, "camera", f"camera: {facts.camera_fault}")
    return ALLOWED
