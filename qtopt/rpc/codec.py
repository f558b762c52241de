"""The vocabulary of ``qtopt.types`` to protobuf messages and back, with every dtype and shape said and checked.

Arrays travel as the bytes of a C-contiguous little-endian array. What arrives is never trusted: a field of another
length, a flag that is neither 0 nor 1 or an unknown enum value raises SchemaMismatch, an episode that does not match
its digest CorruptEpisode. Decoded arrays outlive the message; images that came raw are read-only, all others may be
written to.

Messages are filled in place (``into``): protobuf serialises and parses a message that is handed to another one's
constructor, which costs two copies of all images at each level.
"""

import hashlib
import json
import math
from collections.abc import Sequence
from typing import cast

import numpy as np
from google.protobuf.unknown_fields import UnknownFieldSet

from qtopt.digest import Part, content_digest, digest_of, metadata_json
from qtopt.errors import CheckpointError, CorruptEpisode, SchemaMismatch
from qtopt.legal import check_metadata
from qtopt.rpc.arrays import (
    F32,
    I64,
    U8,
    check_unit,
    decode_images,
    encode_images,
    flags_from_bytes,
    from_bytes,
    member,
    to_bytes,
)
from qtopt.rpc.gen import types_pb2 as pb
from qtopt.specs import ACTION_SIZE, ACTION_SPEC, EPISODE_SPECS, MAX_STEPS
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
)


def encode_observations(
    observations: Observations, into: pb.Observations | None = None, frames: Sequence[bytes] | None = None
) -> pb.Observations:
    """Returns B observations as a message; ``frames`` are their images where these are JPEG files already."""
    message = pb.Observations() if into is None else into
    encode_images(message.image, observations.image, frames=frames)
    message.gripper_closed = to_bytes(observations.gripper_closed, U8)
    message.height_to_bottom = to_bytes(observations.height_to_bottom, F32)
    return message


def decode_observations(message: pb.Observations, size: int, image_size: tuple[int, int] | None = None) -> Observations:
    """Returns the ``size`` observations of a message; raises SchemaMismatch. ``image_size`` as in ``decode_images``."""
    if message.image.count != size:
        raise SchemaMismatch(f"observations: found {message.image.count} images, expected {size}")
    return Observations(
        image=decode_images(message.image, size=image_size),
        gripper_closed=flags_from_bytes(message.gripper_closed, (size,), "gripper_closed"),
        height_to_bottom=from_bytes(message.height_to_bottom, F32, (size,), "height_to_bottom"),
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


def decode_observation(message: pb.Observations, image_size: tuple[int, int] | None = None) -> Observation:
    """Returns the one observation of a message; raises SchemaMismatch. ``image_size`` as in ``decode_images``."""
    one = decode_observations(message, 1, image_size)
    return Observation(one.image[0], bool(one.gripper_closed[0]), float(one.height_to_bottom[0]))


def encode_episode(episode: Episode, into: pb.Episode | None = None, *, jpeg: bool = False) -> pb.Episode:
    """Returns an episode as a message with its digest; raises SchemaMismatch when it does not fit the specs.

    The images travel raw, or with ``jpeg`` as JPEG: a fifth of the bytes, but what arrives is not what was seen.
    """
    _check_episode(episode)
    message = pb.Episode() if into is None else into
    encode_images(message.images, episode.images, jpeg=jpeg)
    message.uuid = episode.uuid
    message.gripper_closed = to_bytes(episode.gripper_closed, U8)
    message.height_to_bottom = to_bytes(episode.height_to_bottom, F32)
    message.tool_pose = to_bytes(episode.tool_pose, F32)
    message.actions = to_bytes(episode.actions, F32)
    message.rewards = to_bytes(episode.rewards, F32)
    message.behaviour = to_bytes(episode.behaviour, U8)
    message.is_intervention = to_bytes(episode.is_intervention, U8) if episode.is_intervention.any() else b""
    message.end = cast(pb.EpisodeEnd, int(episode.end))
    message.outcome = cast(pb.Outcome, int(episode.outcome))
    message.policy_version = episode.policy_version
    message.collector = episode.collector
    message.metadata_json = metadata_json(episode.metadata)
    message.digest = episode_digest(message) if jpeg else content_digest(episode)
    return message


def decode_episode(message: pb.Episode, image_size: tuple[int, int] | None = None) -> Episode:
    """Returns the episode of a message; ``image_size`` as in ``decode_images``.

    Raises:
        CorruptEpisode: the content does not match the digest.
        SchemaMismatch: the content is as it was sent, but no episode of this schema, or one of a release to come.
    """
    raw = message.images.raw
    if episode_digest(message, raw) != message.digest:
        if len(UnknownFieldSet(message)):
            raise SchemaMismatch(
                f"episode {message.uuid!r}: found fields that this release does not know, under a digest that has them "
                "in it: upgrade the server first, then its collectors"
            )
        raise CorruptEpisode(
            f"episode {message.uuid!r}: the content does not match its SHA-256: damaged on the way, send it again"
        )
    steps = len(message.behaviour)
    if not 1 <= steps <= MAX_STEPS:
        raise SchemaMismatch(f"episode: found {steps} actions, expected 1 to {MAX_STEPS}")
    rows = steps + 1
    if message.images.count != rows:
        raise SchemaMismatch(f"episode: found {message.images.count} images for {steps} actions, expected {rows}")
    episode = Episode(
        uuid=message.uuid,
        images=decode_images(message.images, raw, image_size),
        gripper_closed=flags_from_bytes(message.gripper_closed, (rows,), "gripper_closed"),
        height_to_bottom=from_bytes(message.height_to_bottom, F32, (rows,), "height_to_bottom"),
        tool_pose=from_bytes(message.tool_pose, F32, (rows, 4), "tool_pose"),
        actions=from_bytes(message.actions, F32, (steps, ACTION_SIZE), "actions"),
        rewards=from_bytes(message.rewards, F32, (steps,), "rewards"),
        behaviour=from_bytes(message.behaviour, U8, (steps,), "behaviour"),
        end=member(EpisodeEnd, message.end),
        outcome=member(Outcome, message.outcome),
        policy_version=message.policy_version,
        collector=message.collector,
        metadata=_object(message.metadata_json),
        is_intervention=flags_from_bytes(message.is_intervention or bytes(steps), (steps,), "is_intervention"),
    )
    _check_episode(episode)
    return episode


def episode_digest(message: pb.Episode, raw: bytes | None = None) -> bytes:
    """Returns the SHA-256 of an episode's content as types.proto defines it; ``raw`` as in ``decode_images``."""
    images = message.images
    head = (images.count, images.height, images.width, int(images.encoding))
    parts: list[Part] = [message.uuid, *head, images.raw if raw is None else raw, *images.frames]
    parts += [message.gripper_closed, message.height_to_bottom, message.tool_pose, message.actions, message.rewards]
    parts += [message.behaviour, int(message.end), int(message.outcome), message.policy_version]
    parts += [message.collector, message.metadata_json]
    parts += [message.is_intervention] if message.is_intervention else []
    return digest_of(parts)


def sent_digest(message: pb.Episode, episode: Episode) -> bytes | None:
    """Returns the digest that came with a decoded episode where it is ``content_digest``'s, which need not be computed.

    None where the images were no pixels, or where another program puts metadata or flags into other words.
    """
    in_our_words = (
        message.images.encoding == pb.IMAGE_ENCODING_RAW
        and message.metadata_json == metadata_json(episode.metadata)
        and bool(message.is_intervention) == bool(episode.is_intervention.any())
    )
    return message.digest if in_our_words else None


def encode_transitions(
    transitions: Transitions, into: pb.Transitions | None = None, frames: Sequence[bytes] | None = None
) -> pb.Transitions:
    """Returns B transitions as a message; ``frames`` as in ``encode_observations``."""
    message = pb.Transitions() if into is None else into
    encode_observations(transitions.next, message.next, frames)
    message.position = to_bytes(transitions.position, I64)
    message.reward = to_bytes(transitions.reward, F32)
    message.terminal = to_bytes(transitions.terminal, U8)
    message.steps_left = to_bytes(transitions.steps_left, I64)
    message.success = to_bytes(transitions.success, U8)
    return message


def decode_transitions(message: pb.Transitions) -> Transitions:
    """Returns the transitions of a message; raises SchemaMismatch."""
    size = message.next.image.count
    told = bool(message.steps_left)
    return Transitions(
        position=from_bytes(message.position, I64, (size,), "position"),
        reward=from_bytes(message.reward, F32, (size,), "reward"),
        terminal=flags_from_bytes(message.terminal, (size,), "terminal"),
        next=decode_observations(message.next, size),
        steps_left=from_bytes(message.steps_left, I64, (size,), "steps_left") if told else np.full(size, -1),
        success=flags_from_bytes(message.success, (size,), "success") if told else np.zeros(size, np.bool_),
    )


def encode_targets(targets: Targets) -> pb.Targets:
    """Returns B labels as a message; raises SchemaMismatch for values outside [0, 1]."""
    check_unit(targets.value, "target")
    return pb.Targets(
        position=to_bytes(targets.position, I64),
        value=to_bytes(targets.value, F32),
        model_version=targets.model_version,
    )


def decode_targets(message: pb.Targets) -> Targets:
    """Returns the labels of a message; raises SchemaMismatch, also for values outside [0, 1]."""
    size = len(message.position) // I64.itemsize
    value = from_bytes(message.value, F32, (size,), "target value")
    check_unit(value, "target")
    return Targets(from_bytes(message.position, I64, (size,), "position"), value, message.model_version)


def encode_labelled(
    batch: LabelledBatch, into: pb.LabelledBatch | None = None, frames: Sequence[bytes] | None = None
) -> pb.LabelledBatch:
    """Returns B labelled transitions as a message; ``frames`` as in ``encode_observations``."""
    message = pb.LabelledBatch() if into is None else into
    encode_observations(batch.observation, message.observation, frames)
    message.position = to_bytes(batch.position, I64)
    message.action = to_bytes(batch.action, F32)
    message.tool_pose = to_bytes(batch.tool_pose, F32)
    message.target = to_bytes(batch.target, F32)
    message.model_version = to_bytes(batch.model_version, I64)
    message.age_s = to_bytes(batch.age_s, F32)
    return message


def decode_labelled(message: pb.LabelledBatch) -> LabelledBatch:
    """Returns the labelled transitions of a message; raises SchemaMismatch."""
    size = message.observation.image.count
    batch = LabelledBatch(
        position=from_bytes(message.position, I64, (size,), "position"),
        observation=decode_observations(message.observation, size),
        action=from_bytes(message.action, F32, (size, ACTION_SIZE), "action"),
        tool_pose=from_bytes(message.tool_pose, F32, (size, 4), "tool_pose"),
        target=from_bytes(message.target, F32, (size,), "target"),
        model_version=from_bytes(message.model_version, I64, (size,), "model_version"),
        age_s=from_bytes(message.age_s, F32, (size,), "age_s"),
    )
    check_unit(batch.target, "target")
    return batch


def encode_decision(decision: Decision) -> pb.Decision:
    """Returns a decision as a message; raises SchemaMismatch when its action leaves the specs."""
    ACTION_SPEC.validate(decision.action)
    return pb.Decision(
        action=to_bytes(decision.action, F32),
        behaviour=pb.Behaviour.Name(int(decision.behaviour)),
        value=float(decision.value),
    )


def decode_decision(message: pb.Decision) -> Decision:
    """Returns the decision of a message; raises SchemaMismatch."""
    action = from_bytes(message.action, F32, (ACTION_SIZE,), "action")
    ACTION_SPEC.validate(action)
    if not (math.isnan(message.value) or 0.0 <= message.value <= 1.0):
        raise SchemaMismatch(f"decision: found value {message.value}, expected 0 to 1 or NaN")
    return Decision(action, member(Behaviour, message.behaviour), message.value)


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
    for value in set(episode.behaviour.tolist()):
        member(Behaviour, value)


def _object(text: str) -> dict[str, JsonValue]:
    check_metadata(text)
    try:
        value = json.loads(text)
    except (ValueError, RecursionError) as error:
        raise SchemaMismatch(f"episode metadata: found text that is not JSON: {error}") from error
    if not isinstance(value, dict):
        raise SchemaMismatch(f"episode metadata: found a JSON {type(value).__name__}, expected an object")
    return value
