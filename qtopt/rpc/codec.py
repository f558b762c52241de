"""The vocabulary of ``qtopt.types`` to protobuf messages and back, with every dtype and shape said and checked.

Arrays travel as the bytes of a C-contiguous little-endian array. What arrives is never trusted: a field of another
length, a flag that is neither 0 nor 1 or an unknown enum value raises SchemaMismatch, an episode that does not match
its digest CorruptEpisode. Decoded arrays are copies and own their memory, so that they outlive the message and may be
handed to any library.
"""

import enum
import hashlib
import json
import math
from collections.abc import Mapping
from typing import Final, TypeVar

import cv2
import numpy as np
import numpy.typing as npt

from qtopt.errors import CheckpointError, CorruptEpisode, SchemaMismatch
from qtopt.rpc.gen import types_pb2 as pb
from qtopt.specs import ACTION_SIZE, ACTION_SPEC, EPISODE_SPECS
from qtopt.types import (
    Behaviour,
    Decision,
    Episode,
    EpisodeEnd,
    JsonValue,
    LabelledBatch,
    ModelSnapshot,
    Observation,
    Observations,
    Outcome,
    Targets,
    Transitions,
    UInt8Array,
)

Scalar = TypeVar("Scalar", bound=np.generic)
Enum = TypeVar("Enum", bound=enum.IntEnum)

RAW_UP_TO_PX: Final = 128
"""Episodes of images up to this height travel raw, larger ones as JPEG, unless the caller says otherwise."""
_JPEG: Final = (cv2.IMWRITE_JPEG_QUALITY, 95, cv2.IMWRITE_JPEG_SAMPLING_FACTOR, cv2.IMWRITE_JPEG_SAMPLING_FACTOR_444)
_F32: Final = np.dtype("<f4")
_I64: Final = np.dtype("<i8")
_U8: Final = np.dtype("u1")


def encode_images(images: UInt8Array, *, jpeg: bool = False) -> pb.Images:
    """Returns uint8 (N, H, W, 3) RGB images as a message, raw or as JPEG of quality 95 at 4:4:4."""
    if images.dtype != np.uint8 or images.ndim != 4 or images.shape[3] != 3:
        raise SchemaMismatch(f"images: found {images.dtype}{list(images.shape)}, expected uint8[N, H, W, 3]")
    count, height, width, _ = images.shape
    message = pb.Images(count=count, height=height, width=width)
    if jpeg:
        message.encoding = pb.IMAGE_ENCODING_JPEG
        message.frames.extend(cv2.imencode(".jpg", image[..., ::-1], _JPEG)[1].tobytes() for image in images)
    else:
        message.encoding = pb.IMAGE_ENCODING_RAW
        message.raw = images.tobytes()
    return message


def decode_images(message: pb.Images) -> UInt8Array:
    """Returns the images of a message, uint8 (N, H, W, 3); raises SchemaMismatch."""
    shape = (message.count, message.height, message.width, 3)
    if message.encoding == pb.IMAGE_ENCODING_RAW:
        return _array(message.raw, _U8, shape, "images")
    if message.encoding != pb.IMAGE_ENCODING_JPEG:
        raise SchemaMismatch(f"images: found encoding {message.encoding}, expected 1 (raw) or 2 (JPEG)")
    if len(message.frames) != message.count:
        raise SchemaMismatch(f"images: found {len(message.frames)} JPEG frames, expected {message.count}")
    decoded = [_decode_jpeg(frame, shape[1:]) for frame in message.frames]
    return np.stack(decoded) if decoded else np.empty(shape, np.uint8)


def _decode_jpeg(frame: bytes, shape: tuple[int, ...]) -> UInt8Array:
    try:
        image = cv2.imdecode(np.frombuffer(frame, np.uint8), cv2.IMREAD_COLOR_RGB)
    except cv2.error:
        image = None
    if image is None or image.shape != shape:
        found = "bytes that are no JPEG" if image is None else f"an image of {list(image.shape)}"
        raise SchemaMismatch(f"images: found {found}, expected a JPEG of {list(shape)}")
    return np.asarray(image, np.uint8)


def encode_observations(observations: Observations) -> pb.Observations:
    """Returns B observations as a message."""
    return pb.Observations(
        image=encode_images(observations.image),
        gripper_closed=_bytes(observations.gripper_closed, _U8),
        height_to_bottom=_bytes(observations.height_to_bottom, _F32),
    )


def decode_observations(message: pb.Observations, size: int) -> Observations:
    """Returns the ``size`` observations of a message; raises SchemaMismatch."""
    if message.image.count != size:
        raise SchemaMismatch(f"observations: found {message.image.count} images, expected {size}")
    return Observations(
        image=decode_images(message.image),
        gripper_closed=_flags(message.gripper_closed, (size,), "gripper_closed"),
        height_to_bottom=_array(message.height_to_bottom, _F32, (size,), "height_to_bottom"),
    )


def encode_observation(observation: Observation) -> pb.Observations:
    """Returns one observation as a message of one."""
    return encode_observations(
        Observations(
            image=observation.image[None],
            gripper_closed=np.array([observation.gripper_closed]),
            height_to_bottom=np.array([observation.height_to_bottom], np.float32),
        )
    )


def decode_observation(message: pb.Observations) -> Observation:
    """Returns the one observation of a message; raises SchemaMismatch."""
    one = decode_observations(message, 1)
    return Observation(one.image[0], bool(one.gripper_closed[0]), float(one.height_to_bottom[0]))


def encode_episode(episode: Episode, *, jpeg: bool | None = None) -> pb.Episode:
    """Returns an episode as a message with its digest; raises SchemaMismatch when it does not fit the specs.

    ``jpeg`` says how the images travel; by default those above 128 pixels as JPEG, which is lossy.
    """
    _check_episode(episode)
    lossy = episode.images.shape[1] > RAW_UP_TO_PX if jpeg is None else jpeg
    message = pb.Episode(
        uuid=episode.uuid,
        images=encode_images(episode.images, jpeg=lossy),
        gripper_closed=_bytes(episode.gripper_closed, _U8),
        height_to_bottom=_bytes(episode.height_to_bottom, _F32),
        tool_pose=_bytes(episode.tool_pose, _F32),
        actions=_bytes(episode.actions, _F32),
        rewards=_bytes(episode.rewards, _F32),
        behaviour=_bytes(episode.behaviour, _U8),
        end=pb.EpisodeEnd.Name(int(episode.end)),
        outcome=pb.Outcome.Name(int(episode.outcome)),
        policy_version=episode.policy_version,
        collector=episode.collector,
        metadata_json=_json(episode.metadata),
    )
    message.digest = episode_digest(message)
    return message


def decode_episode(message: pb.Episode) -> Episode:
    """Returns the episode of a message.

    Raises:
        CorruptEpisode: the content does not match the digest.
        SchemaMismatch: the content is as it was sent, but no episode of this schema.
    """
    if episode_digest(message) != message.digest:
        raise CorruptEpisode(
            f"episode {message.uuid!r}: the content does not match its SHA-256: damaged on the way, send it again"
        )
    steps = len(message.behaviour)
    rows = steps + 1
    if message.images.count != rows:
        raise SchemaMismatch(f"episode: found {message.images.count} images for {steps} actions, expected {rows}")
    episode = Episode(
        uuid=message.uuid,
        images=decode_images(message.images),
        gripper_closed=_flags(message.gripper_closed, (rows,), "gripper_closed"),
        height_to_bottom=_array(message.height_to_bottom, _F32, (rows,), "height_to_bottom"),
        tool_pose=_array(message.tool_pose, _F32, (rows, 4), "tool_pose"),
        actions=_array(message.actions, _F32, (steps, ACTION_SIZE), "actions"),
        rewards=_array(message.rewards, _F32, (steps,), "rewards"),
        behaviour=_array(message.behaviour, _U8, (steps,), "behaviour"),
        end=_enum(EpisodeEnd, message.end),
        outcome=_enum(Outcome, message.outcome),
        policy_version=message.policy_version,
        collector=message.collector,
        metadata=_object(message.metadata_json),
    )
    _check_episode(episode)
    return episode


def episode_digest(message: pb.Episode) -> bytes:
    """Returns the SHA-256 of an episode's content as types.proto defines it."""
    images = message.images
    head = (images.count, images.height, images.width, int(images.encoding))
    parts: list[str | bytes | int] = [message.uuid, *head, images.raw, *images.frames]
    parts += [message.gripper_closed, message.height_to_bottom, message.tool_pose, message.actions, message.rewards]
    parts += [message.behaviour, int(message.end), int(message.outcome), message.policy_version]
    parts += [message.collector, message.metadata_json]
    digest = hashlib.sha256()
    for part in parts:
        data = part.to_bytes(8, "little", signed=True) if isinstance(part, int) else part
        data = data.encode() if isinstance(data, str) else data
        digest.update(len(data).to_bytes(8, "little"))
        digest.update(data)
    return digest.digest()


def encode_transitions(transitions: Transitions) -> pb.Transitions:
    """Returns B transitions as a message."""
    return pb.Transitions(
        position=_bytes(transitions.position, _I64),
        reward=_bytes(transitions.reward, _F32),
        terminal=_bytes(transitions.terminal, _U8),
        next=encode_observations(transitions.next),
    )


def decode_transitions(message: pb.Transitions) -> Transitions:
    """Returns the transitions of a message; raises SchemaMismatch."""
    size = message.next.image.count
    return Transitions(
        position=_array(message.position, _I64, (size,), "position"),
        reward=_array(message.reward, _F32, (size,), "reward"),
        terminal=_flags(message.terminal, (size,), "terminal"),
        next=decode_observations(message.next, size),
    )


def encode_targets(targets: Targets) -> pb.Targets:
    """Returns B labels as a message; raises SchemaMismatch for values outside [0, 1]."""
    _check_unit(targets.value, "target")
    return pb.Targets(
        position=_bytes(targets.position, _I64),
        value=_bytes(targets.value, _F32),
        model_version=targets.model_version,
    )


def decode_targets(message: pb.Targets) -> Targets:
    """Returns the labels of a message; raises SchemaMismatch, also for values outside [0, 1]."""
    size = len(message.position) // _I64.itemsize
    value = _array(message.value, _F32, (size,), "target value")
    _check_unit(value, "target")
    return Targets(_array(message.position, _I64, (size,), "position"), value, message.model_version)


def encode_labelled(batch: LabelledBatch) -> pb.LabelledBatch:
    """Returns B labelled transitions as a message."""
    return pb.LabelledBatch(
        position=_bytes(batch.position, _I64),
        observation=encode_observations(batch.observation),
        action=_bytes(batch.action, _F32),
        tool_pose=_bytes(batch.tool_pose, _F32),
        target=_bytes(batch.target, _F32),
        model_version=_bytes(batch.model_version, _I64),
        age_s=_bytes(batch.age_s, _F32),
    )


def decode_labelled(message: pb.LabelledBatch) -> LabelledBatch:
    """Returns the labelled transitions of a message; raises SchemaMismatch."""
    size = message.observation.image.count
    batch = LabelledBatch(
        position=_array(message.position, _I64, (size,), "position"),
        observation=decode_observations(message.observation, size),
        action=_array(message.action, _F32, (size, ACTION_SIZE), "action"),
        tool_pose=_array(message.tool_pose, _F32, (size, 4), "tool_pose"),
        target=_array(message.target, _F32, (size,), "target"),
        model_version=_array(message.model_version, _I64, (size,), "model_version"),
        age_s=_array(message.age_s, _F32, (size,), "age_s"),
    )
    _check_unit(batch.target, "target")
    return batch


def encode_decision(decision: Decision) -> pb.Decision:
    """Returns a decision as a message; raises SchemaMismatch when its action leaves the specs."""
    ACTION_SPEC.validate(decision.action)
    return pb.Decision(
        action=_bytes(decision.action, _F32),
        behaviour=pb.Behaviour.Name(int(decision.behaviour)),
        value=float(decision.value),
    )


def decode_decision(message: pb.Decision) -> Decision:
    """Returns the decision of a message; raises SchemaMismatch."""
    action = _array(message.action, _F32, (ACTION_SIZE,), "action")
    ACTION_SPEC.validate(action)
    if not (math.isnan(message.value) or 0.0 <= message.value <= 1.0):
        raise SchemaMismatch(f"decision: found value {message.value}, expected 0 to 1 or NaN")
    return Decision(action, _enum(Behaviour, message.behaviour), message.value)


def encode_snapshot(snapshot: ModelSnapshot) -> pb.ModelSnapshot:
    """Returns published networks as a message."""
    return pb.ModelSnapshot(
        version=snapshot.version, step=snapshot.step, payload=snapshot.payload, digest=snapshot.digest
    )


def decode_snapshot(message: pb.ModelSnapshot) -> ModelSnapshot:
    """Returns the published networks of a message; raises CheckpointError when they do not match their digest."""
    check_payload(message.payload, message.digest)
    return ModelSnapshot(message.version, message.step, message.payload, message.digest)


def payload_digest(payload: bytes) -> str:
    """Returns the SHA-256 of networks as 64 hexadecimal digits."""
    return hashlib.sha256(payload).hexdigest()


def check_payload(payload: bytes, digest: str) -> None:
    """Raises CheckpointError unless ``digest`` is the payload's."""
    found = payload_digest(payload)
    if found != digest:
        raise CheckpointError(
            f"networks of {len(payload)} bytes have the SHA-256 {found[:12]}..., expected {digest[:12]!r}...: they "
            "were damaged on the way or on disk; fetch or publish them again"
        )


def _bytes(array: npt.NDArray[np.generic], dtype: np.dtype[np.generic]) -> bytes:
    if array.dtype.kind == "b" and dtype == _U8:
        return array.tobytes()
    if array.dtype != dtype:
        raise SchemaMismatch(f"array: found {array.dtype}{list(array.shape)}, expected {dtype}")
    return array.tobytes()


def _array(data: bytes, dtype: np.dtype[Scalar], shape: tuple[int, ...], name: str) -> npt.NDArray[Scalar]:
    expected = math.prod(shape) * dtype.itemsize
    if len(data) != expected:
        raise SchemaMismatch(f"{name}: found {len(data)} bytes, expected {expected} for {dtype}{list(shape)}")
    return np.frombuffer(data, dtype).reshape(shape).copy()


def _flags(data: bytes, shape: tuple[int, ...], name: str) -> npt.NDArray[np.bool_]:
    value = _array(data, _U8, shape, name)
    if value.size and int(value.max()) > 1:
        raise SchemaMismatch(f"{name}: found a flag of {int(value.max())}, expected 0 or 1")
    return value.view(np.bool_)


def _enum(kind: type[Enum], value: int) -> Enum:
    try:
        return kind(value)
    except ValueError as error:
        known = ", ".join(str(int(member)) for member in kind)
        raise SchemaMismatch(f"{kind.__name__}: found {value}, expected one of {known}") from error


def _check_unit(value: npt.NDArray[np.float32], name: str) -> None:
    if value.size and not bool(np.all((value >= 0.0) & (value <= 1.0))):
        raise SchemaMismatch(f"{name}: found values {value.min()} to {value.max()}, expected 0 to 1")


def _check_episode(episode: Episode) -> None:
    for spec in EPISODE_SPECS:
        spec.validate(getattr(episode, spec.name))
    steps = len(episode)
    if steps < 1:
        raise SchemaMismatch("episode: found no action, expected at least 1")
    for index, spec in enumerate(EPISODE_SPECS):
        rows = steps + 1 if index < 4 else steps
        if len(getattr(episode, spec.name)) != rows:
            raise SchemaMismatch(
                f"episode: {spec.name} has {len(getattr(episode, spec.name))} rows, expected {rows} for {steps} actions"
            )
    for value in np.unique(episode.behaviour):
        _enum(Behaviour, int(value))


def _json(metadata: Mapping[str, JsonValue]) -> str:
    try:
        return json.dumps(dict(metadata), allow_nan=False, sort_keys=True)
    except (TypeError, ValueError) as error:
        raise SchemaMismatch(f"episode metadata: {error}; expected JSON values (no NaN, no arrays)") from error


def _object(text: str) -> dict[str, JsonValue]:
    try:
        value = json.loads(text)
    except ValueError as error:
        raise SchemaMismatch(f"episode metadata: found text that is not JSON: {error}") from error
    if not isinstance(value, dict):
        raise SchemaMismatch(f"episode metadata: found a JSON {type(value).__name__}, expected an object")
    return value
