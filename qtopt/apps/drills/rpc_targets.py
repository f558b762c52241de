"""What arrives over gRPC, as targets of fuzzing: requests as a server takes them apart, answers as a client does."""

import random
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any, Final

import numpy as np
from google.protobuf.message import DecodeError, Message

from qtopt.apps.drills.mutate import damage_bytes, damage_fields
from qtopt.errors import SchemaMismatch
from qtopt.replay import MemoryStore, StoreFormat
from qtopt.replay.record import encode_episode
from qtopt.rpc import FigureBoard, codec, policy, replay
from qtopt.rpc.gen import model_pb2, monitor_pb2, policy_pb2, replay_pb2
from qtopt.rpc.handshake import check_schemas, local_schema
from qtopt.specs import make_action
from qtopt.types import Behaviour, Decision, Episode, EpisodeEnd, ModelSnapshot, Observation, Outcome, new_episode_uuid

IMAGE_PX: Final = 16
_FORMAT: Final = StoreFormat.for_images(IMAGE_PX)


@dataclass(frozen=True)
class Target:
    """Something that takes bytes from strangers.

    Attributes:
        name: of the call or the file.
        seeds: bytes that it takes.
        take: takes bytes; raises QtOptError for those that it refuses, anything else is a fault.
        damage: changes a seed.
        weight: share of the inputs, in proportion to the others'.
    """

    name: str
    seeds: tuple[bytes, ...]
    take: Callable[[bytes], object]
    damage: Callable[[random.Random, bytes], bytes] = damage_bytes
    weight: float = 1.0


def make_episode(rng: np.random.Generator, steps: int = 3, px: int = IMAGE_PX) -> Episode:
    """Returns a legal episode of ``steps`` actions whose images, uint8 (steps + 1, px, px, 3), are noise."""
    return Episode(
        uuid=new_episode_uuid(),
        images=rng.integers(0, 256, (steps + 1, px, px, 3), dtype=np.uint8),
        gripper_closed=rng.random(steps + 1) < 0.5,
        height_to_bottom=rng.uniform(0.0, 0.4, steps + 1).astype(np.float32),
        tool_pose=rng.uniform(-1.0, 1.0, (steps + 1, 4)).astype(np.float32),
        actions=np.stack([make_action((0.01, 0.0, -0.02), 0.3, close=step == 1) for step in range(steps)]),
        rewards=np.full(steps, -0.05, np.float32),
        behaviour=np.full(steps, Behaviour.NOISE, np.uint8),
        end=EpisodeEnd.TERMINATED,
        outcome=Outcome.SUCCESS,
        policy_version=4,
        collector="arm-0",
        metadata={"seed": 7, "objects": [1, 2], "object_set": "train"},
        is_intervention=rng.random(steps) < 0.5,
    )


def rpc_targets(rng: np.random.Generator) -> list[Target]:
    """Returns one target for each request and each answer with content."""
    episodes = [make_episode(rng, steps) for steps in (1, 3)]
    store = MemoryStore(_FORMAT, rng=np.random.default_rng(0))
    for episode in episodes:
        store.append(episode)
    transitions = store.sample_transitions(4, 1.0)
    observation = Observation(episodes[0].images[0], gripper_closed=True, height_to_bottom=0.1)
    state = policy._state(np.random.default_rng(0))
    seen = codec.encode_observation(observation)
    targets = replay_pb2.PutTargetsRequest()
    targets.targets.position = transitions.position.tobytes()
    targets.targets.value = np.full(len(transitions), 0.5, np.float32).tobytes()
    targets.targets.model_version = 3
    store.put_targets(codec.decode_targets(targets.targets))
    snapshot = ModelSnapshot(3, 100, b"networks", codec.payload_digest(b"networks"))
    drawn = replay_pb2.SampleTransitionsResponse()
    codec.encode_transitions(transitions, drawn.transitions)
    labelled = replay_pb2.SampleLabelledResponse()
    codec.encode_labelled(store.sample_labelled(4, 1.0), labelled.batch)
    decision = codec.encode_decision(Decision(episodes[0].actions[0], Behaviour.GREEDY, 0.5))
    board = FigureBoard()
    ours = local_schema((IMAGE_PX, IMAGE_PX))

    def report(request: monitor_pb2.ReportRequest) -> None:
        board.report(request.role, request.figures, request.texts)

    def sample(request: replay_pb2.SampleRequest) -> None:
        replay._sample_deadline(request, (IMAGE_PX, IMAGE_PX))

    def select(request: policy_pb2.SelectActionRequest) -> None:
        policy._set_state(np.random.default_rng(0), request.rng_json)
        codec.decode_observation(request.observation)

    return [
        _of("AppendEpisode", _append, *_appends(episodes), sign=_sign_episode, weight=3.0),
        _of("PutTargets", lambda m: store.put_targets(codec.decode_targets(m.targets)), targets),
        _of("SampleTransitions", sample, replay_pb2.SampleRequest(count=4, timeout_s=0.5)),
        _of("Handshake", lambda m: check_schemas(m.schema, ours), replay_pb2.HandshakeRequest(schema=ours)),
        _of("Publish", _publish, _published(snapshot), sign=_sign_networks),
        _of("GetLatest", _wait, model_pb2.GetLatestRequest(newer_than=1, wait_s=0.5)),
        _of("Report", report, monitor_pb2.ReportRequest(role="arm", figures={"a": 1.0}, texts={"b": "c"})),
        _of("BeginEpisode", _begin, policy_pb2.BeginEpisodeRequest(session="ab", rng_json=state)),
        _of("SelectAction", select, policy_pb2.SelectActionRequest(session="ab", observation=seen, rng_json=state)),
        _of("answer of SampleTransitions", lambda m: codec.decode_transitions(m.transitions), drawn),
        _of("answer of SampleLabelled", lambda m: codec.decode_labelled(m.batch), labelled),
        _of("answer of SelectAction", _decide, policy_pb2.SelectActionResponse(decision=decision, rng_json=state)),
        _of(
            "answer of GetLatest",
            lambda m: codec.decode_snapshot(m.snapshot),
            model_pb2.GetLatestResponse(snapshot=codec.encode_snapshot(snapshot)),
        ),
    ]


def _of(
    name: str,
    take: Callable[[Any], object],
    *seeds: Message,
    sign: Callable[[Any], None] = lambda message: None,
    weight: float = 1.0,
) -> Target:
    """Returns a target whose seeds are messages; ``sign`` makes a changed one as its sender would have sent it."""
    kind = type(seeds[0])

    def parse_and_take(data: bytes) -> object:
        try:
            message = kind.FromString(data)
        except DecodeError as error:
            raise SchemaMismatch(f"no {kind.__name__}: {error}") from error
        return take(message)

    def damage(rng: random.Random, data: bytes) -> bytes:
        if rng.random() < 0.3:
            return damage_bytes(rng, data)
        message = kind.FromString(data)
        for _ in range(1 + rng.getrandbits(1)):
            damage_fields(rng, message)
        if rng.random() < 0.9:
            sign(message)
        return message.SerializeToString()

    return Target(name, tuple(each.SerializeToString() for each in seeds), parse_and_take, damage, weight)


def _appends(episodes: list[Episode]) -> Iterator[replay_pb2.AppendEpisodeRequest]:
    for episode in episodes:
        for jpeg in (False, True):
            request = replay_pb2.AppendEpisodeRequest()
            codec.encode_episode(episode, request.episode, jpeg=jpeg)
            yield request


def _append(request: replay_pb2.AppendEpisodeRequest) -> None:
    encode_episode(codec.decode_episode(request.episode), _FORMAT)


def _sign_episode(request: replay_pb2.AppendEpisodeRequest) -> None:
    request.episode.digest = codec.episode_digest(request.episode)


def _published(snapshot: ModelSnapshot) -> model_pb2.PublishRequest:
    return model_pb2.PublishRequest(step=snapshot.step, payload=snapshot.payload, digest=snapshot.digest)


def _publish(request: model_pb2.PublishRequest) -> None:
    codec.check_payload(request.payload, request.digest)


def _sign_networks(request: model_pb2.PublishRequest) -> None:
    request.digest = codec.payload_digest(request.payload)


def _wait(request: model_pb2.GetLatestRequest) -> None:
    assert not time.monotonic() + min(request.wait_s, 60.0) > time.monotonic() + 61.0


def _begin(request: policy_pb2.BeginEpisodeRequest) -> None:
    rng = np.random.default_rng()
    policy._set_state(rng, request.rng_json)
    policy._state(rng)


def _decide(answer: policy_pb2.SelectActionResponse) -> None:
    policy._set_state(np.random.default_rng(0), answer.rng_json)
    codec.decode_decision(answer.decision)
