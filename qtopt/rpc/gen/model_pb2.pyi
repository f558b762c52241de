from qtopt.rpc.gen import types_pb2 as _types_pb2
from google.protobuf import descriptor as _descriptor
from google.protobuf import message as _message
from collections.abc import Mapping as _Mapping
from typing import ClassVar as _ClassVar, Optional as _Optional, Union as _Union

DESCRIPTOR: _descriptor.FileDescriptor

class PublishRequest(_message.Message):
    __slots__ = ("step", "payload", "digest")
    STEP_FIELD_NUMBER: _ClassVar[int]
    PAYLOAD_FIELD_NUMBER: _ClassVar[int]
    DIGEST_FIELD_NUMBER: _ClassVar[int]
    step: int
    payload: bytes
    digest: str
    def __init__(self, step: _Optional[int] = ..., payload: _Optional[bytes] = ..., digest: _Optional[str] = ...) -> None: ...

class PublishResponse(_message.Message):
    __slots__ = ("version",)
    VERSION_FIELD_NUMBER: _ClassVar[int]
    version: int
    def __init__(self, version: _Optional[int] = ...) -> None: ...

class GetLatestRequest(_message.Message):
    __slots__ = ("newer_than", "wait_s", "most_bytes")
    NEWER_THAN_FIELD_NUMBER: _ClassVar[int]
    WAIT_S_FIELD_NUMBER: _ClassVar[int]
    MOST_BYTES_FIELD_NUMBER: _ClassVar[int]
    newer_than: int
    wait_s: float
    most_bytes: int
    def __init__(self, newer_than: _Optional[int] = ..., wait_s: _Optional[float] = ..., most_bytes: _Optional[int] = ...) -> None: ...

class GetLatestResponse(_message.Message):
    __slots__ = ("snapshot", "left_out_bytes")
    SNAPSHOT_FIELD_NUMBER: _ClassVar[int]
    LEFT_OUT_BYTES_FIELD_NUMBER: _ClassVar[int]
    snapshot: _types_pb2.ModelSnapshot
    left_out_bytes: int
    def __init__(self, snapshot: _Optional[_Union[_types_pb2.ModelSnapshot, _Mapping]] = ..., left_out_bytes: _Optional[int] = ...) -> None: ...
