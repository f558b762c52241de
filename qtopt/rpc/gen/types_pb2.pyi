from google.protobuf.internal import containers as _containers
from google.protobuf.internal import enum_type_wrapper as _enum_type_wrapper
from google.protobuf import descriptor as _descriptor
from google.protobuf import message as _message
from collections.abc import Iterable as _Iterable, Mapping as _Mapping
from typing import ClassVar as _ClassVar, Optional as _Optional, Union as _Union

DESCRIPTOR: _descriptor.FileDescriptor

class ImageEncoding(int, metaclass=_enum_type_wrapper.EnumTypeWrapper):
    __slots__ = ()
    IMAGE_ENCODING_UNSPECIFIED: _ClassVar[ImageEncoding]
    IMAGE_ENCODING_RAW: _ClassVar[ImageEncoding]
    IMAGE_ENCODING_JPEG: _ClassVar[ImageEncoding]

class Behaviour(int, metaclass=_enum_type_wrapper.EnumTypeWrapper):
    __slots__ = ()
    BEHAVIOUR_UNSPECIFIED: _ClassVar[Behaviour]
    BEHAVIOUR_SCRIPTED: _ClassVar[Behaviour]
    BEHAVIOUR_GREEDY: _ClassVar[Behaviour]
    BEHAVIOUR_NOISE: _ClassVar[Behaviour]
    BEHAVIOUR_RANDOM: _ClassVar[Behaviour]
    BEHAVIOUR_HUMAN: _ClassVar[Behaviour]

class Outcome(int, metaclass=_enum_type_wrapper.EnumTypeWrapper):
    __slots__ = ()
    OUTCOME_UNSPECIFIED: _ClassVar[Outcome]
    OUTCOME_SUCCESS: _ClassVar[Outcome]
    OUTCOME_NOTHING_GRASPED: _ClassVar[Outcome]
    OUTCOME_DROPPED: _ClassVar[Outcome]
    OUTCOME_TIMED_OUT: _ClassVar[Outcome]
    OUTCOME_ABORTED: _ClassVar[Outcome]
    OUTCOME_UNKNOWN: _ClassVar[Outcome]

class EpisodeEnd(int, metaclass=_enum_type_wrapper.EnumTypeWrapper):
    __slots__ = ()
    EPISODE_END_UNSPECIFIED: _ClassVar[EpisodeEnd]
    EPISODE_END_TERMINATED: _ClassVar[EpisodeEnd]
    EPISODE_END_TRUNCATED: _ClassVar[EpisodeEnd]
IMAGE_ENCODING_UNSPECIFIED: ImageEncoding
IMAGE_ENCODING_RAW: ImageEncoding
IMAGE_ENCODING_JPEG: ImageEncoding
BEHAVIOUR_UNSPECIFIED: Behaviour
BEHAVIOUR_SCRIPTED: Behaviour
BEHAVIOUR_GREEDY: Behaviour
BEHAVIOUR_NOISE: Behaviour
BEHAVIOUR_RANDOM: Behaviour
BEHAVIOUR_HUMAN: Behaviour
OUTCOME_UNSPECIFIED: Outcome
OUTCOME_SUCCESS: Outcome
OUTCOME_NOTHING_GRASPED: Outcome
OUTCOME_DROPPED: Outcome
OUTCOME_TIMED_OUT: Outcome
OUTCOME_ABORTED: Outcome
OUTCOME_UNKNOWN: Outcome
EPISODE_END_UNSPECIFIED: EpisodeEnd
EPISODE_END_TERMINATED: EpisodeEnd
EPISODE_END_TRUNCATED: EpisodeEnd

class Images(_message.Message):
    __slots__ = ("count", "height", "width", "encoding", "raw", "frames")
    COUNT_FIELD_NUMBER: _ClassVar[int]
    HEIGHT_FIELD_NUMBER: _ClassVar[int]
    WIDTH_FIELD_NUMBER: _ClassVar[int]
    ENCODING_FIELD_NUMBER: _ClassVar[int]
    RAW_FIELD_NUMBER: _ClassVar[int]
    FRAMES_FIELD_NUMBER: _ClassVar[int]
    count: int
    height: int
    width: int
    encoding: ImageEncoding
    raw: bytes
    frames: _containers.RepeatedScalarFieldContainer[bytes]
    def __init__(self, count: _Optional[int] = ..., height: _Optional[int] = ..., width: _Optional[int] = ..., encoding: _Optional[_Union[ImageEncoding, str]] = ..., raw: _Optional[bytes] = ..., frames: _Optional[_Iterable[bytes]] = ...) -> None: ...

class Observations(_message.Message):
    __slots__ = ("image", "gripper_closed", "height_to_bottom")
    IMAGE_FIELD_NUMBER: _ClassVar[int]
    GRIPPER_CLOSED_FIELD_NUMBER: _ClassVar[int]
    HEIGHT_TO_BOTTOM_FIELD_NUMBER: _ClassVar[int]
    image: Images
    gripper_closed: bytes
    height_to_bottom: bytes
    def __init__(self, image: _Optional[_Union[Images, _Mapping]] = ..., gripper_closed: _Optional[bytes] = ..., height_to_bottom: _Optional[bytes] = ...) -> None: ...

class Episode(_message.Message):
    __slots__ = ("uuid", "images", "gripper_closed", "height_to_bottom", "tool_pose", "actions", "rewards", "behaviour", "end", "outcome", "policy_version", "collector", "metadata_json", "is_intervention", "digest")
    UUID_FIELD_NUMBER: _ClassVar[int]
    IMAGES_FIELD_NUMBER: _ClassVar[int]
    GRIPPER_CLOSED_FIELD_NUMBER: _ClassVar[int]
    HEIGHT_TO_BOTTOM_FIELD_NUMBER: _ClassVar[int]
    TOOL_POSE_FIELD_NUMBER: _ClassVar[int]
    ACTIONS_FIELD_NUMBER: _ClassVar[int]
    REWARDS_FIELD_NUMBER: _ClassVar[int]
    BEHAVIOUR_FIELD_NUMBER: _ClassVar[int]
    END_FIELD_NUMBER: _ClassVar[int]
    OUTCOME_FIELD_NUMBER: _ClassVar[int]
    POLICY_VERSION_FIELD_NUMBER: _ClassVar[int]
    COLLECTOR_FIELD_NUMBER: _ClassVar[int]
    METADATA_JSON_FIELD_NUMBER: _ClassVar[int]
    IS_INTERVENTION_FIELD_NUMBER: _ClassVar[int]
    DIGEST_FIELD_NUMBER: _ClassVar[int]
    uuid: str
    images: Images
    gripper_closed: bytes
    height_to_bottom: bytes
    tool_pose: bytes
    actions: bytes
    rewards: bytes
    behaviour: bytes
    end: EpisodeEnd
    outcome: Outcome
    policy_version: int
    collector: str
    metadata_json: str
    is_intervention: bytes
    digest: bytes
    def __init__(self, uuid: _Optional[str] = ..., images: _Optional[_Union[Images, _Mapping]] = ..., gripper_closed: _Optional[bytes] = ..., height_to_bottom: _Optional[bytes] = ..., tool_pose: _Optional[bytes] = ..., actions: _Optional[bytes] = ..., rewards: _Optional[bytes] = ..., behaviour: _Optional[bytes] = ..., end: _Optional[_Union[EpisodeEnd, str]] = ..., outcome: _Optional[_Union[Outcome, str]] = ..., policy_version: _Optional[int] = ..., collector: _Optional[str] = ..., metadata_json: _Optional[str] = ..., is_intervention: _Optional[bytes] = ..., digest: _Optional[bytes] = ...) -> None: ...

class Transitions(_message.Message):
    __slots__ = ("position", "reward", "terminal", "next", "steps_left", "success")
    POSITION_FIELD_NUMBER: _ClassVar[int]
    REWARD_FIELD_NUMBER: _ClassVar[int]
    TERMINAL_FIELD_NUMBER: _ClassVar[int]
    NEXT_FIELD_NUMBER: _ClassVar[int]
    STEPS_LEFT_FIELD_NUMBER: _ClassVar[int]
    SUCCESS_FIELD_NUMBER: _ClassVar[int]
    position: bytes
    reward: bytes
    terminal: bytes
    next: Observations
    steps_left: bytes
    success: bytes
    def __init__(self, position: _Optional[bytes] = ..., reward: _Optional[bytes] = ..., terminal: _Optional[bytes] = ..., next: _Optional[_Union[Observations, _Mapping]] = ..., steps_left: _Optional[bytes] = ..., success: _Optional[bytes] = ...) -> None: ...

class Targets(_message.Message):
    __slots__ = ("position", "value", "model_version")
    POSITION_FIELD_NUMBER: _ClassVar[int]
    VALUE_FIELD_NUMBER: _ClassVar[int]
    MODEL_VERSION_FIELD_NUMBER: _ClassVar[int]
    position: bytes
    value: bytes
    model_version: int
    def __init__(self, position: _Optional[bytes] = ..., value: _Optional[bytes] = ..., model_version: _Optional[int] = ...) -> None: ...

class LabelledBatch(_message.Message):
    __slots__ = ("position", "observation", "action", "tool_pose", "target", "model_version", "age_s")
    POSITION_FIELD_NUMBER: _ClassVar[int]
    OBSERVATION_FIELD_NUMBER: _ClassVar[int]
    ACTION_FIELD_NUMBER: _ClassVar[int]
    TOOL_POSE_FIELD_NUMBER: _ClassVar[int]
    TARGET_FIELD_NUMBER: _ClassVar[int]
    MODEL_VERSION_FIELD_NUMBER: _ClassVar[int]
    AGE_S_FIELD_NUMBER: _ClassVar[int]
    position: bytes
    observation: Observations
    action: bytes
    tool_pose: bytes
    target: bytes
    model_version: bytes
    age_s: bytes
    def __init__(self, position: _Optional[bytes] = ..., observation: _Optional[_Union[Observations, _Mapping]] = ..., action: _Optional[bytes] = ..., tool_pose: _Optional[bytes] = ..., target: _Optional[bytes] = ..., model_version: _Optional[bytes] = ..., age_s: _Optional[bytes] = ...) -> None: ...

class Decision(_message.Message):
    __slots__ = ("action", "behaviour", "value")
    ACTION_FIELD_NUMBER: _ClassVar[int]
    BEHAVIOUR_FIELD_NUMBER: _ClassVar[int]
    VALUE_FIELD_NUMBER: _ClassVar[int]
    action: bytes
    behaviour: Behaviour
    value: float
    def __init__(self, action: _Optional[bytes] = ..., behaviour: _Optional[_Union[Behaviour, str]] = ..., value: _Optional[float] = ...) -> None: ...

class ModelSnapshot(_message.Message):
    __slots__ = ("version", "step", "payload", "digest")
    VERSION_FIELD_NUMBER: _ClassVar[int]
    STEP_FIELD_NUMBER: _ClassVar[int]
    PAYLOAD_FIELD_NUMBER: _ClassVar[int]
    DIGEST_FIELD_NUMBER: _ClassVar[int]
    version: int
    step: int
    payload: bytes
    digest: str
    def __init__(self, version: _Optional[int] = ..., step: _Optional[int] = ..., payload: _Optional[bytes] = ..., digest: _Optional[str] = ...) -> None: ...
