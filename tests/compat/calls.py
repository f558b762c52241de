"""One call of every kind, as a client of this release makes it: always the same bytes."""

import dataclasses

import numpy as np

from qtopt import specs
from qtopt.replay import EpisodeStore, StoreFormat
from qtopt.rpc import ModelRegistry, Services, codec, policy
from qtopt.rpc.gen import model_pb2, monitor_pb2, policy_pb2, replay_pb2
from qtopt.rpc.handshake import local_schema
from qtopt.types import Behaviour, Decision, Observation, Targets
from tests.episodes import make_episode

PX = 8
FORMAT = StoreFormat.for_images(PX)
ANSWERS = {
    "Handshake": replay_pb2.HandshakeResponse,
    "AppendEpisode": replay_pb2.AppendEpisodeResponse,
    "SampleTransitions": replay_pb2.SampleTransitionsResponse,
    "PutTargets": replay_pb2.PutTargetsResponse,
    "SampleLabelled": replay_pb2.SampleLabelledResponse,
    "GetStats": replay_pb2.GetStatsResponse,
    "Publish": model_pb2.PublishResponse,
    "GetLatest": model_pb2.GetLatestResponse,
    "Report": monitor_pb2.ReportResponse,
    "GetFigures": monitor_pb2.GetFiguresResponse,
    "BeginEpisode": policy_pb2.BeginEpisodeResponse,
    "SelectAction": policy_pb2.SelectActionResponse,
}
SERVICES = {
    **dict.fromkeys(("Publish", "GetLatest"), "Model"),
    **dict.fromkeys(("Report", "GetFigures"), "Monitor"),
    **dict.fromkeys(("BeginEpisode", "SelectAction"), "Policy"),
}


class Wandering:
    """A policy that needs no network: it goes where chance says."""

    def begin_episode(self, rng):
        self._rng = rng

    def select(self, observation):
        return Decision(specs.make_action(tuple(self._rng.uniform(-0.05, 0.05, 3))), Behaviour.RANDOM)


def episodes():
    """Returns an ordinary episode, one that a person took over, and a failed one."""
    rng = np.random.default_rng(5)
    plain, helped, failed = (make_episode(rng, steps, size_px=PX, success=steps < 4) for steps in (2, 3, 4))
    flags = np.array([False, True, True])
    return [plain, dataclasses.replace(helped, is_intervention=flags), failed]


def services(root):
    """Returns what a server needs to answer the calls; the store is the caller's to close."""
    opened = EpisodeStore(root, FORMAT, rng=np.random.default_rng(0))
    return opened, Services((PX, PX), lambda: opened, registry=ModelRegistry(), make_policy=Wandering)


def path_of(name):
    """Returns the full method of a call."""
    return f"/qtopt.v1.{SERVICES.get(name, 'Replay')}Service/{name}"


def requests():
    """Returns the calls in the order in which they make sense: name and message."""
    calls = [("Handshake", replay_pb2.HandshakeRequest(schema=local_schema((PX, PX))))]
    for episode, jpeg in zip(episodes(), (False, False, True), strict=True):
        append = replay_pb2.AppendEpisodeRequest()
        codec.encode_episode(episode, append.episode, jpeg=jpeg)
        calls.append(("AppendEpisode", append))
    positions = np.array([0, 1, 3, 4], np.int64)
    targets = codec.encode_targets(Targets(positions, np.array([0.0, 1.0, 0.5, 0.25], np.float32), 1))
    payload = b"networks of another time"
    observation = codec.encode_observation(Observation(np.zeros((PX, PX, 3), np.uint8), True, 0.1))
    state = policy._state(np.random.default_rng(3))
    return [
        *calls,
        ("SampleTransitions", replay_pb2.SampleRequest(count=4, timeout_s=1.0)),
        ("PutTargets", replay_pb2.PutTargetsRequest(targets=targets)),
        ("SampleLabelled", replay_pb2.SampleRequest(count=4, timeout_s=1.0)),
        ("GetStats", replay_pb2.GetStatsRequest()),
        ("Publish", model_pb2.PublishRequest(step=10, payload=payload, digest=codec.payload_digest(payload))),
        ("GetLatest", model_pb2.GetLatestRequest(newer_than=0)),
        ("Report", monitor_pb2.ReportRequest(role="collector/arm-0", figures={"episodes": 3.0}, texts={"state": "on"})),
        ("GetFigures", monitor_pb2.GetFiguresRequest()),
        ("BeginEpisode", policy_pb2.BeginEpisodeRequest(session="arm-0", rng_json=state)),
        ("SelectAction", policy_pb2.SelectActionRequest(session="arm-0", observation=observation, rng_json=state)),
    ]
