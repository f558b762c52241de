"""What a server takes of its clients, as targets of fuzzing: every method, handled as a server handles it."""

import asyncio
import atexit
import contextlib
import math
from collections.abc import AsyncIterator, Callable
from typing import Any, Final

import grpc
import numpy as np
from google.protobuf.message import Message
from grpc_health.v1 import health, health_pb2, health_pb2_grpc
from grpc_reflection.v1alpha import reflection, reflection_pb2, reflection_pb2_grpc

from qtopt.agent.exploration import ScriptedPolicy
from qtopt.agent.learner import Learner, LearnerConfig
from qtopt.agent.snapshot import check
from qtopt.apps.drills.targets import IMAGE_PX, Target, labelled_store, make_episode, message_target
from qtopt.errors import RemoteError
from qtopt.rpc import FigureBoard, ModelRegistry, codec
from qtopt.rpc.callers import ANYBODY, Caller, set_caller
from qtopt.rpc.gen import model_pb2 as model
from qtopt.rpc.gen import model_pb2_grpc, monitor_pb2_grpc, policy_pb2_grpc, replay_pb2_grpc
from qtopt.rpc.gen import monitor_pb2 as monitor
from qtopt.rpc.gen import policy_pb2 as policy_pb
from qtopt.rpc.gen import replay_pb2 as replay
from qtopt.rpc.handshake import local_schema
from qtopt.rpc.health import Health
from qtopt.rpc.interceptors import Handler, behaviour_of, run
from qtopt.rpc.metrics import ServerMetrics
from qtopt.rpc.model import ModelServicer
from qtopt.rpc.monitor import MonitorServicer
from qtopt.rpc.policy import PolicyServicer, _state
from qtopt.rpc.replay import ReplayServicer
from qtopt.types import Observation, Targets

_SIZE: Final = (IMAGE_PX, IMAGE_PX)
_SERVED: Final = "qtopt.v1.ReplayService"


def request_targets(rng: np.random.Generator) -> list[Target]:
    """Returns one target for each method that a server serves, under the method's own name."""
    episodes = [make_episode(rng, steps) for steps in (1, 3)]
    first = episodes[0]
    seen = codec.encode_observation(Observation(first.images[0], gripper_closed=True, height_to_bottom=0.1))
    state = _state(np.random.default_rng(0))
    labels = codec.encode_targets(Targets(np.arange(4), np.full(4, 0.5, np.float32), model_version=3))
    sample = replay.SampleRequest(count=4, timeout_s=0.5)
    networks = Learner(LearnerConfig(), seed=0).snapshot()
    publish = model.PublishRequest(step=100, payload=networks, digest=codec.payload_digest(networks))
    begin = policy_pb.BeginEpisodeRequest(session="ab", rng_json=state)
    select = policy_pb.SelectActionRequest(session="ab", observation=seen, rng_json=state)
    whom = [health_pb2.HealthCheckRequest(service=name) for name in ("", _SERVED)]
    asked = ({"list_services": "*"}, {"file_containing_symbol": _SERVED}, {"file_by_filename": "qtopt/v1/replay.proto"})
    reflect = [reflection_pb2.ServerReflectionRequest(**each) for each in asked]
    server = _Served(networks)

    def target(name: str, *seeds: Message, sign: Callable[[Any], None] = _unsigned, weight: float = 1.0) -> Target:
        return message_target(name, server.taker(name), *seeds, sign=sign, weight=weight)

    server.taker("BeginEpisode")(begin)
    return [
        target("AppendEpisode", *_appends(episodes), sign=_sign_episode, weight=3.0),
        target("PutTargets", replay.PutTargetsRequest(targets=labels)),
        target("SampleTransitions", sample, weight=0.2),
        target("SampleLabelled", sample, weight=0.2),
        target("GetStats", replay.GetStatsRequest(), weight=0.1),
        target("Handshake", replay.HandshakeRequest(schema=local_schema(_SIZE))),
        target("Publish", publish, sign=_sign_networks, weight=0.05),
        target("GetLatest", model.GetLatestRequest(newer_than=1, wait_s=0.5)),
        target("Report", monitor.ReportRequest(role="arm", figures={"a": 1.0}, texts={"b": "c"})),
        target("GetFigures", monitor.GetFiguresRequest(), weight=0.05),
        target("BeginEpisode", begin),
        target("SelectAction", select),
        target("Check", *whom, weight=0.2),
        target("List", health_pb2.HealthListRequest(), weight=0.1),
        target("Watch", *whom, weight=0.2),
        target("ServerReflectionInfo", *reflect, weight=0.2),
    ]


def waiting_at_most(wait_s: float, request: Any) -> Any:
    """Returns the request with its wait for data or networks cut to ``wait_s``, where none would be refused."""
    for name, longest_s in (("timeout_s", 3600.0), ("wait_s", math.inf)):
        if wait_s < getattr(request, name, wait_s) <= longest_s:
            setattr(request, name, wait_s)
    return request


class _Served:
    """The services of a server with their handlers, as generated code registers them, behind no port.

    Args:
        networks: that were published.
    """

    def __init__(self, networks: bytes) -> None:
        self._handlers: dict[str, Handler] = {}
        self._runner = asyncio.Runner()
        atexit.register(self._runner.close)
        metrics, board, registry = ServerMetrics(), FigureBoard(), ModelRegistry(check=check)
        registry.publish(1, networks)
        store = ReplayServicer(_SIZE, metrics)
        store.opened(labelled_store(np.random.default_rng(0)))
        healthy = Health({_SERVED: lambda: None}, (_SERVED,), metrics)
        self._runner.run(healthy.look())
        register: Any = self  # generated code asks for a server, and uses the two methods below
        replay_pb2_grpc.add_ReplayServiceServicer_to_server(store, register)
        model_pb2_grpc.add_ModelServiceServicer_to_server(ModelServicer(registry), register)
        monitor_pb2_grpc.add_MonitorServiceServicer_to_server(MonitorServicer(board), register)
        policies = PolicyServicer(ScriptedPolicy, image_size=_SIZE)
        policy_pb2_grpc.add_PolicyServiceServicer_to_server(policies, register)
        health_pb2_grpc.add_HealthServicer_to_server(healthy.servicer, register)
        names = [_SERVED, health.SERVICE_NAME, reflection.SERVICE_NAME]
        described = reflection.aio.ReflectionServicer(names)  # type: ignore[attr-defined]  # set at its import
        reflection_pb2_grpc.add_ServerReflectionServicer_to_server(described, register)

    def add_generic_rpc_handlers(self, handlers: object) -> None:
        """Takes the same handlers as the other method, under no names."""

    def add_registered_method_handlers(self, service: str, handlers: dict[str, Handler]) -> None:
        """Takes a service's handlers by the names of its methods."""
        self._handlers |= handlers

    def taker(self, name: str) -> Callable[[Message], None]:
        """Returns what handles a request of the method of that name."""
        handler = self._handlers[name]
        return lambda request: self._runner.run(_handle(handler, waiting_at_most(0.0, request)))


async def _handle(handler: Handler, request: Message) -> None:
    """Handles a request of any kind of method, as far as its first answer, which is serialised."""
    set_caller(Caller(ANYBODY, "fuzz"))
    to_bytes: Any = handler.response_serializer
    context: Any = _Context(to_bytes)
    with contextlib.suppress(_Answered):
        answer = await run(behaviour_of(handler), _one(request) if handler.request_streaming else request, context)
        if not handler.response_streaming:
            to_bytes(answer)


async def _one(request: Message) -> AsyncIterator[Message]:
    yield request


class _Answered(Exception):
    """The first answer of a stream, which may go on for ever."""


class _Context:
    """What a servicer does beside returning: it writes a stream's answers, or refuses."""

    def __init__(self, to_bytes: Callable[[Any], bytes]) -> None:
        self._to_bytes = to_bytes

    async def write(self, answer: object) -> None:
        self._to_bytes(answer)
        raise _Answered

    async def abort(self, code: grpc.StatusCode, details: str = "") -> None:
        raise RemoteError(f"{code.name}: {details}")


def _appends(episodes: list[Any]) -> list[replay.AppendEpisodeRequest]:
    requests = []
    for episode in episodes:
        for jpeg in (False, True):
            request = replay.AppendEpisodeRequest()
            codec.encode_episode(episode, request.episode, jpeg=jpeg)
            requests.append(request)
    return requests


def _unsigned(request: Any) -> None:
    """Leaves a request that bears no digest as it is."""


def _sign_episode(request: replay.AppendEpisodeRequest) -> None:
    request.episode.digest = codec.episode_digest(request.episode)


def _sign_networks(request: model.PublishRequest) -> None:
    request.digest = codec.payload_digest(request.payload)
