"""The software safety layer: limits, the monitor that enforces them, and locks that survive the death of a process.

It comes on top of an emergency stop, of the limits set at the arm's own controller and of a risk assessment, and
replaces none of them (docs/safety.md).
"""

from robot_bridge.safety.limits import BinGeometry, ContactLimits, RecoveryLimits, SafetyLimits, WatchdogLimits

__all__ = ["BinGeometry", "ContactLimits", "RecoveryLimits", "SafetyLimits", "WatchdogLimits"]
