"""The policy over gRPC, for robots without torch.

A session is one client's policy with what it remembers since the start of its episode. Chance stays the client's: the
state of its generator travels there and back with each call, so that a remote policy draws what a local one would.
"""

import asyncio
import json
import uuid
from collections import Counter, OrderedDict
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Final

import numpy as np

from qtopt.errors import RemoteError, SchemaMismatch
from qtopt.interfaces import Policy
from qtopt.rpc import codec
from qtopt.rpc.callers import ANYBODY, current_caller
from qtopt.rpc.channel import Channel
from qtopt.rpc.gen import policy_pb2 as pb
from qtopt.rpc.gen.policy_pb2_grpc import PolicyServiceServicer, PolicyServiceStub
from qtopt.rpc.interceptors import Context
from qtopt.rpc.roles import Identity
from qtopt.rpc.workers import Workers
from qtopt.types import Decision, Observation

MAX_SESSIONS: Final = 64
"""Sessions held; beyond that one of the client who has most is dropped, the one unused for the longest."""
MAX_SESSIONS_EACH: Final = 16
"""Sessions of one client, where clients are asked who they are; beyond that it loses its own."""
MAX_STATE: Final = 4096
"""Characters of a generator's state; those of PCG64 are some 200."""

_Key = tuple[Identity | None, str]
"""A session belongs to the client that began it: another's of the same name is another session."""


@dataclass
class _Session:
    policy: Policy
    rng: np.random.Generator
    lock: asyncio.Lock = field(default_factory=asyncio.Lock)


class PolicyServicer(PolicyServiceServicer):
    """Serves policies.

    Args:
        make_policy: returns a new policy for one session; policies may share a network. Called in a worker thread.
        version: returns the version of the networks in use.
        image_size: (height, width) [pixels] of the images that it takes; None takes any.
    """

    def __init__(
        self,
        make_policy: Callable[[], Policy],
        version: Callable[[], int] = lambda: 0,
        image_size: tuple[int, int] | None = None,
    ) -> None:
        self._make_policy = make_policy
        self._version = version
        self._image_size = image_size
        self._sessions: OrderedDict[_Key, _Session] = OrderedDict()  # the one unused for the longest first
        self._workers = Workers("policy", 2)

    async def close(self) -> None:
        """Drops what waits and ends what runs."""
        await self._workers.close()

    async def BeginEpisode(self, request: pb.BeginEpisodeRequest, context: Context) -> pb.BeginEpisodeResponse:
        """Makes the session if it is new and starts an episode."""
        if not 1 <= len(request.session) <= 64:
            raise SchemaMismatch(f"policy session: found a name of {len(request.session)} characters, expected 1 to 64")
        rng = np.random.default_rng()
        _set_state(rng, request.rng_json)
        caller = current_caller()
        key = caller.identity, request.session
        session = self._sessions.get(key)
        if session is None:
            session = _Session(await self._workers.run(self._make_policy, caller.account), rng)
            self._sessions[key] = session
        self._sessions.move_to_end(key)
        self._drop_surplus()
        async with session.lock:
            policy = session.policy
            session.rng = rng
            await self._workers.run(lambda: policy.begin_episode(rng), caller.account)
            return pb.BeginEpisodeResponse(rng_json=_state(rng), policy_version=self._version())

    async def SelectAction(self, request: pb.SelectActionRequest, context: Context) -> pb.SelectActionResponse:
        """Answers with the session's decision."""
        caller = current_caller()
        key = caller.identity, request.session
        session = self._sessions.get(key)
        if session is None:
            raise RemoteError(f"policy session {request.session!r} is not known (any more): begin the episode again")
        self._sessions.move_to_end(key)
        async with session.lock:
            policy = session.policy
            _set_state(session.rng, request.rng_json)
            decision = await self._workers.run(
                lambda: policy.select(codec.decode_observation(request.observation, self._image_size)), caller.account
            )
            return pb.SelectActionResponse(
                decision=codec.encode_decision(decision),
                rng_json=_state(session.rng),
                policy_version=self._version(),
            )

    def _drop_surplus(self) -> None:
        """Drops what is more than may be; nobody loses a session to a client that has more of them."""
        counts = Counter(identity for identity, _ in self._sessions)
        for key in list(self._sessions):
            identity, most = key[0], max(counts.values())
            is_too_many = counts[identity] > MAX_SESSIONS_EACH and identity != ANYBODY
            if is_too_many or (counts.total() > MAX_SESSIONS and counts[identity] == most):
                del self._sessions[key]
                counts[identity] -= 1


class PolicyClient:
    """A remote Policy, for one thread; several clients of one channel have a session each.

    Attributes:
        policy_version: version of the networks that the server used last.
    """

    def __init__(self, channel: Channel) -> None:
        self._channel = channel
        self._stub = PolicyServiceStub(channel.grpc)
        self._session = uuid.uuid4().hex
        self._rng: np.random.Generator | None = None
        self.policy_version = 0

    def begin_episode(self, rng: np.random.Generator) -> None:
        """Forgets the last episode; the server draws all chance of the coming one from ``rng``, a PCG64 generator."""
        request = pb.BeginEpisodeRequest(session=self._session, rng_json=_state(rng))
        answer = self._channel.call(self._stub.BeginEpisode, request, "begin episode")
        _set_state(rng, answer.rng_json)
        self._rng = rng
        self.policy_version = answer.policy_version

    def select(self, observation: Observation) -> Decision:
        """Returns the action to take; never asked twice, since an answer may have been lost after the policy moved on.

        Raises:
            RemoteError: no episode was begun, or the server does not remember it.
            ServerUnavailable: nobody answered.
        """
        if self._rng is None:
            raise RemoteError("select: found no episode, expected begin_episode before it")
        request = pb.SelectActionRequest(
            session=self._session, observation=codec.encode_observation(observation), rng_json=_state(self._rng)
        )
        answer = self._channel.call(self._stub.SelectAction, request, "select action", idempotent=False)
        _set_state(self._rng, answer.rng_json)
        self.policy_version = answer.policy_version
        return codec.decode_decision(answer.decision)


def _state(rng: np.random.Generator) -> str:
    return json.dumps(rng.bit_generator.state, default=str)


def _set_state(rng: np.random.Generator, text: str) -> None:
    if len(text) > MAX_STATE:
        raise SchemaMismatch(
            f"policy: found a random generator's state of {len(text)} characters, expected at most {MAX_STATE}: send "
            "that of a PCG64, as numpy.random.default_rng makes it"
        )
    try:
        rng.bit_generator.state = json.loads(text)
    except (ValueError, TypeError, KeyError, OverflowError, RecursionError) as error:
        raise SchemaMismatch(
            "policy: found the state of another random generator, expected PCG64 as numpy.random.default_rng makes it"
        ) from error
