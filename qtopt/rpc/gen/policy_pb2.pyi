from qtopt.rpc.gen import types_pb2 as _types_pb2
from google.protobuf import descriptor as _descriptor
from google.protobuf import message as _message
from collections.abc import Mapping as _Mapping
from typing import ClassVar as _ClassVar, Optional as _Optional, Union as _Union

DESCRIPTOR: _descriptor.FileDescriptor

class BeginEpisodeRequest(_message.Message):
    __slots__ = ("session", "rng_json")
    SESSION_FIELD_NUMBER: _ClassVar[int]
    RNG_JSON_FIELD_NUMBER: _ClassVar[int]
    session: str
    rng_json: str
    def __init__(self, session: _Optional[str] = ..., rng_json: _Optional[str] = ...) -> None: ...

class BeginEpisodeResponse(_message.Message):
    __slots__ = ("rng_json", "policy_version")
    RNG_JSON_FIELD_NUMBER: _ClassVar[int]
    POLICY_VERSION_FIELD_NUMBER: _ClassVar[int]
    rng_json: str
    policy_version: int
    def __init__(self, rng_json: _Optional[str] = ..., policy_version: _Optional[int] = ...) -> None: ...

class SelectActionRequest(_message.Message):
    __slots__ = ("session", "observation", "rng_json")
    SESSION_FIELD_NUMBER: _ClassVar[int]
    OBSERVATION_FIELD_NUMBER: _ClassVar[int]
    RNG_JSON_FIELD_NUMBER: _ClassVar[int]
    session: str
    observation: _types_pb2.Observations
    rng_json: str
    def __init__(self, session: _Optional[str] = ..., observation: _Optional[_Union[_types_pb2.Observations, _Mapping]] = ..., rng_json: _Optional[str] = ...) -> None: ...

class SelectActionResponse(_message.Message):
    __slots__ = ("decision", "rng_json", "policy_version")
    DECISION_FIELD_NUMBER: _ClassVar[int]
    RNG_JSON_FIELD_NUMBER: _ClassVar[int]
    POLICY_VERSION_FIELD_NUMBER: _ClassVar[int]
    decision: _types_pb2.Decision
    rng_json: str
    policy_version: int
    def __init__(self, decision: _Optional[_Union[_types_pb2.Decision, _Mapping]] = ..., rng_json: _Optional[str] = ..., policy_version: _Optional[int] = ...) -> None: ...
