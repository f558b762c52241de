"""The vocabulary: the values that travel between the parts.

Shape letters, here and everywhere: B batch, N CEM samples, T actions of an episode, H W C image, A action. Positions
are metres and angles radians in the robot's base frame (x forward, y left, z up). Arrays are never changed after
construction.
"""

import enum
import uuid as uuid_module
from collections.abc import Mapping
from dataclasses import dataclass, field

import numpy as np
import numpy.typing as npt

UInt8Array = npt.NDArray[np.uint8]
BoolArray = npt.NDArray[np.bool_]
FloatArray = npt.NDArray[np.float32]
IntArray = npt.NDArray[np.int64]
JsonValue = None | bool | int | float | str | list["JsonValue"] | dict[str, "JsonValue"]


class Behaviour(enum.IntEnum):
    """Which rule chose an action."""

    SCRIPTED = 1
    GREEDY = 2
    NOISE = 3  # the greedy action with noise on its displacement and rotation
    RANDOM = 4  # epsilon: uniform over the action space
    HUMAN = 5


class Outcome(enum.IntEnum):
    """How an episode came out."""

    SUCCESS = 1
    NOTHING_GRASPED = 2  # terminated, and the closed fingers had never lifted anything
    DROPPED = 3  # an object was held at some moment, but not at the end
    TIMED_OUT = 4  # the step limit was reached without an object held
    ABORTED = 5  # ended by a safety event or a fault; never a training label
    UNKNOWN = 6  # the detector could not decide; never a training label


class EpisodeEnd(enum.IntEnum):
    """What ended an episode, in Gymnasium's words."""

    TERMINATED = 1
    TRUNCATED = 2


@dataclass(frozen=True, slots=True)
class Observation:
    """What the policy sees.

    Attributes:
        image: RGB from the over-the-shoulder camera, uint8, shape (H, W, 3).
        gripper_closed: True when the fingers were last told to close.
        height_to_bottom: height of the finger tips above the bin floor [m].
    """

    image: UInt8Array
    gripper_closed: bool
    height_to_bottom: float


@dataclass(frozen=True, slots=True)
class Decision:
    """An action and where it came from.

    Attributes:
        action: float32, shape (8,), laid out as in ``specs.ACTION_SPEC``.
        behaviour: the rule that chose it.
        value: the network's Q of the action in [0, 1]; NaN where no network was asked.
        is_intervention: whether a person took over from another policy for this step.
        facts: JSON values to keep with the step: how long the choice took, whether it came too late.
    """

    action: FloatArray
    behaviour: Behaviour
    value: float = float("nan")
    is_intervention: bool = False
    facts: Mapping[str, JsonValue] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Episode:
    """One finished grasp episode of T actions and T + 1 observations.

    Attributes:
        uuid: 32 hexadecimal digits, chosen by the collector when the episode starts; the key of delivery.
        images: uint8, (T + 1, H, W, 3) RGB.
        gripper_closed: bool, (T + 1,).
        height_to_bottom: float32, (T + 1,) [m].
        tool_pose: float32, (T + 1, 4): x, y, z [m] and azimuth [rad] of the finger tips in the base frame. Telemetry:
            never an input of a policy.
        actions: float32, (T, 8), the actions as *executed* after every limit.
        rewards: float32, (T,), step penalty included.
        behaviour: uint8, (T,), values of ``Behaviour``.
        end: whether the episode terminated or was truncated at the step limit.
        outcome: how it came out.
        policy_version: version of the newest policy that the collector held at the start; 0 before the first.
        collector: name of the collector.
        metadata: JSON values: seed, objects, randomisation draw, configuration hash.
        is_intervention: bool, (T,), whether a person took over from another policy for that step; given empty, as by
            default, it is all False.
    """

    uuid: str
    images: UInt8Array
    gripper_closed: BoolArray
    height_to_bottom: FloatArray
    tool_pose: FloatArray
    actions: FloatArray
    rewards: FloatArray
    behaviour: UInt8Array
    end: EpisodeEnd
    outcome: Outcome
    policy_version: int
    collector: str
    metadata: Mapping[str, JsonValue] = field(default_factory=dict)
    is_intervention: BoolArray = field(default_factory=lambda: np.zeros(0, np.bool_))

    def __post_init__(self) -> None:
        if self.is_intervention.size == 0:
            object.__setattr__(self, "is_intervention", np.zeros(len(self.actions), np.bool_))

    def __len__(self) -> int:
        return len(self.actions)

    @property
    def success(self) -> bool:
        """Whether an object was held at the end."""
        return self.outcome is Outcome.SUCCESS

    @property
    def trainable(self) -> bool:
        """Whether the outcome may become a training label."""
        return self.outcome not in (Outcome.ABORTED, Outcome.UNKNOWN)


def new_episode_uuid() -> str:
    """Returns 32 hexadecimal digits that nobody had before, whatever the seed: stores of several runs can be merged."""
    return uuid_module.uuid4().hex


@dataclass(frozen=True, slots=True)
class Observations:
    """B observations: image uint8 (B, H, W, 3), gripper_closed bool (B,), height_to_bottom float32 (B,) [m]."""

    image: UInt8Array
    gripper_closed: BoolArray
    height_to_bottom: FloatArray

    def __len__(self) -> int:
        return len(self.image)


@dataclass(frozen=True, slots=True)
class Transitions:
    """B transitions waiting for a target, as a Bellman updater needs them.

    Attributes:
        position: int64 (B,), where each transition stands in its store: what its target is put back under.
        reward: float32 (B,).
        terminal: bool (B,), True where nothing follows: the target is the reward alone.
        next: the observations s' that follow; undefined content where terminal.
        steps_left: int64 (B,), actions of the episode after this one, 0 for its last; -1 where a server of an earlier
            version does not tell.
        success: bool (B,), whether the episode ended in success; False where ``steps_left`` is -1.
    """

    position: IntArray
    reward: FloatArray
    terminal: BoolArray
    next: Observations
    steps_left: IntArray
    success: BoolArray

    def __len__(self) -> int:
        return len(self.position)


@dataclass(frozen=True, slots=True)
class Targets:
    """B labels: position int64 (B,), value float32 (B,) in [0, 1], and the model version that made them."""

    position: IntArray
    value: FloatArray
    model_version: int

    def __len__(self) -> int:
        return len(self.position)


@dataclass(frozen=True, slots=True)
class LabelledBatch:
    """B labelled transitions, as the trainer needs them.

    Attributes:
        position: int64 (B,).
        observation: the observations s.
        action: float32 (B, 8).
        tool_pose: float32 (B, 4) at s [m, rad]; telemetry for the compact network's localisation loss.
        target: float32 (B,) in [0, 1].
        model_version: int64 (B,), version of the target networks behind each label.
        age_s: float32 (B,), seconds since each label was put.
    """

    position: IntArray
    observation: Observations
    action: FloatArray
    tool_pose: FloatArray
    target: FloatArray
    model_version: IntArray
    age_s: FloatArray

    def __len__(self) -> int:
        return len(self.position)


@dataclass(frozen=True, slots=True)
class ModelSnapshot:
    """A published set of networks.

    Attributes:
        version: counts up from 1 within a registry.
        step: gradient steps behind it.
        payload: safetensors bytes that hold both target networks and, in the header, the network's configuration.
        digest: SHA-256 of the payload, 64 hexadecimal digits.
    """

    version: int
    step: int
    payload: bytes
    digest: str
