"""Every error that this project raises on purpose.

* QtOptError
    * ConfigError: a setting that cannot work (exit code 2)
    * SchemaMismatch: two sides disagree about the shape of the data (exit code 3)
    * StoreError: the episode store refused (exit code 4)
        * CorruptEpisode: bytes that do not match their checksum
        * EpisodeConflict: a known UUID with other content
        * StoreFull: the store's disk has no space left or cannot be written now
        * UnknownEpisode: no episode of that name, or no longer
    * CheckpointError: weights or a checkpoint that cannot be used (exit code 5)
    * RemoteError: a call to another process failed (exit code 6)
        * ServerUnavailable: nobody answered in time; the call may be tried again
        * AccessDenied: the server knows who calls, and does not let them
            * NotAuthenticated: the server does not know who calls
    * RobotError: the arm or the camera did not do what was asked (exit code 7)
        * StaleFrame: the camera gave no picture that is new enough
        * FrozenFrame: the camera gives the same picture again and again
        * NotReady: the arm answers, and a person has to do something before it can be moved
        * UnkeptLock: motion is locked, and the disk did not take the lock
    * ProcessFailed: a role of a run died again and again (exit code 8)

A message says what was found, what was expected and what to do. The command line prints it on one line and exits with
the class's ``exit_code``.
"""


class QtOptError(Exception):
    """Base of all errors that this project raises on purpose."""

    exit_code = 1


class ConfigError(QtOptError):
    """A setting that cannot work, found before anything was started."""

    exit_code = 2


class SchemaMismatch(QtOptError):
    """Data of another shape, dtype or version than this program works with."""

    exit_code = 3


class StoreError(QtOptError):
    """The episode store refused an operation."""

    exit_code = 4


class CorruptEpisode(StoreError):
    """Stored or received bytes do not match their checksum."""


class EpisodeConflict(StoreError):
    """An episode with a known UUID but other content; it was kept aside, not stored."""


class StoreFull(StoreError):
    """The store's disk has no room or cannot be written now; nothing was acknowledged. To be tried again later."""


class UnknownEpisode(StoreError):
    """The store has no such episode, or has it no longer."""


class CheckpointError(QtOptError):
    """A checkpoint or a set of weights that cannot be used."""

    exit_code = 5


class RemoteError(QtOptError):
    """A call to another process failed."""

    exit_code = 6


class ServerUnavailable(RemoteError):
    """Nobody answered in time. The call may be tried again."""


class AccessDenied(RemoteError):
    """The server knows who calls, and that role may not make the call."""


class NotAuthenticated(AccessDenied):
    """The server does not know who calls: no, a wrong or an expired token, or a certificate without a role."""


class RobotError(QtOptError):
    """The arm, gripper or camera did not do what was asked."""

    exit_code = 7


class StaleFrame(RobotError):
    """The camera gave no picture that is new enough."""


class FrozenFrame(RobotError):
    """The camera gives pictures, but their content has stopped changing."""


class NotReady(RobotError):
    """The arm can be reached, but only a person can bring it into a state in which it may be moved."""


class UnkeptLock(RobotError):
    """Motion is locked, and the lock could not be written: only the process that says so knows of it."""


class ProcessFailed(QtOptError):
    """A role died again and again, or ended with an error where its result was needed."""

    exit_code = 8
