"""The episode store and the ring of labels over gRPC: the servicer over any local store, and the client that is one."""

import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any, Final, Protocol, TypeVar

import numpy as np
import structlog

from qtopt.errors import QtOptError, SchemaMismatch, ServerUnavailable
from qtopt.interfaces import BatchSource, EpisodeSink, TargetSink, TransitionSource
from qtopt.rpc import codec
from qtopt.rpc.callers import current_caller
from qtopt.rpc.channel import Channel
from qtopt.rpc.gen import replay_pb2 as pb
from qtopt.rpc.gen import types_pb2 as types_pb
from qtopt.rpc.gen.replay_pb2_grpc import ReplayServiceServicer, ReplayServiceStub
from qtopt.rpc.handshake import local_schema, negotiate
from qtopt.rpc.interceptors import Context
from qtopt.rpc.metrics import ServerMetrics
from qtopt.rpc.settings import MESSAGE_LIMIT_BYTES
from qtopt.rpc.workers import Workers
from qtopt.types import Episode, LabelledBatch, Observations, Targets, Transitions

Batch = TypeVar("Batch", Transitions, LabelledBatch)
Result = TypeVar("Result")

log = structlog.get_logger(__name__)

SAMPLE_LIMIT: Final = 4096
"""Rows of one sampling call at most, of large images there are fewer, see ``most_rows``; and labels put in one call."""
LONGEST_WAIT_S: Final = 10.0
"""A sampling call that waits for data is answered after this time at the latest; clients ask again."""
CHUNK_BYTES: Final = 6 << 20
"""Images per sampling call: gRPC carries 2 to 7 MB messages at three times the speed of 13 MB ones."""
_SLICE_S: Final = 0.5
_ROW_BYTES: Final = 256  # of a row beside its image, at most
_LOGGED: Final = 64  # characters of what a client calls itself
_GRACE_S: Final = 5.0  # of a sampling call's deadline beyond the time that the server may wait for data


class ReplayStore(EpisodeSink, TransitionSource, TargetSink, BatchSource, Protocol):
    """What the servicer needs of a store; every method may be called by several threads at a time."""

    def append(self, episode: Episode, digest: bytes | None = None) -> bool:
        """As ``EpisodeSink.append``; ``digest`` is the episode's ``content_digest``, where it was checked before."""
        ...

    def sample_transition_frames(self, count: int, timeout_s: float) -> tuple[Transitions, Sequence[bytes] | None]:
        """As ``sample_transitions``, with the images as JPEG files beside it where they are stored as such."""
        ...

    def sample_labelled_frames(self, count: int, timeout_s: float) -> tuple[LabelledBatch, Sequence[bytes] | None]:
        """As ``sample_labelled``, with the images as JPEG files beside it where they are stored as such."""
        ...

    def stats(self) -> Mapping[str, float | str]:
        """Returns the store's figures and texts by name."""
        ...


class ReplayServicer(ReplayServiceServicer):
    """Serves a store; until ``opened`` was called every call but the handshake is answered with UNAVAILABLE.

    Args:
        image_size: (height, width) [pixels] of the store's images.
        metrics: told of every new episode.
    """

    def __init__(self, image_size: tuple[int, int], metrics: ServerMetrics) -> None:
        self._metrics = metrics
        self._schema = local_schema(image_size)
        self._image_size = image_size
        self._store: ReplayStore | None = None
        self._closing = False
        self._appends = Workers("append", 16)
        self._transitions = Workers("sample transitions", 8, each=2)
        self._labelled = Workers("sample labelled", 4, each=2)
        self._quick = Workers("targets and stats", 4, each=2)

    @property
    def is_open(self) -> bool:
        """Whether there is a store to serve."""
        return self._store is not None

    def figures(self) -> dict[str, float]:
        """Returns how many calls of each kind are inside or wait for a thread."""
        kinds = {
            "append": self._appends,
            "transitions": self._transitions,
            "labelled": self._labelled,
            "quick": self._quick,
        }
        return {f"calls_inside_{name}": float(workers.inside) for name, workers in kinds.items()}

    def opened(self, store: ReplayStore) -> None:
        """Begins to serve ``store``."""
        self._store = store

    async def close(self) -> None:
        """Ends what waits and what runs; afterwards the store is not touched, and its owner's to close."""
        self._closing = True
        for workers in (self._appends, self._transitions, self._labelled, self._quick):
            await workers.close()

    async def Handshake(self, request: pb.HandshakeRequest, context: Context) -> pb.HandshakeResponse:
        """Answers with the server's schema, or refuses naming what differs."""
        return pb.HandshakeResponse(schema=negotiate(request.schema, self._schema))

    async def AppendEpisode(self, request: pb.AppendEpisodeRequest, context: Context) -> pb.AppendEpisodeResponse:
        """Acknowledges an episode after the store's ``append`` has returned."""
        store = self._open()
        return await self._appends.run(lambda: self._append(store, request.episode), current_caller().account)

    async def SampleTransitions(self, request: pb.SampleRequest, context: Context) -> pb.SampleTransitionsResponse:
        """Draws transitions within the request's ``timeout_s``, time in line included."""
        store = self._open()

        def draw(timeout_s: float) -> pb.SampleTransitionsResponse:
            batch, frames = store.sample_transition_frames(request.count, timeout_s)
            response = pb.SampleTransitionsResponse()
            codec.encode_transitions(batch, response.transitions, frames)
            return response

        return await self._in_slices(self._transitions, draw, _sample_deadline(request, self._image_size))

    async def PutTargets(self, request: pb.PutTargetsRequest, context: Context) -> pb.PutTargetsResponse:
        """Enters labels, no more than one answer has transitions: the store does nothing else meanwhile."""
        store = self._open()

        def work() -> None:
            targets = codec.decode_targets(request.targets)
            if len(targets) > SAMPLE_LIMIT:
                raise SchemaMismatch(
                    f"put targets: found {len(targets)} labels, expected at most {SAMPLE_LIMIT} in one call: send them "
                    "in several"
                )
            store.put_targets(targets)

        await self._quick.run(work, current_caller().account)
        return pb.PutTargetsResponse()

    async def SampleLabelled(self, request: pb.SampleRequest, context: Context) -> pb.SampleLabelledResponse:
        """Draws labelled transitions within the request's ``timeout_s``, time in line included."""
        store = self._open()

        def draw(timeout_s: float) -> pb.SampleLabelledResponse:
            batch, frames = store.sample_labelled_frames(request.count, timeout_s)
            response = pb.SampleLabelledResponse()
            codec.encode_labelled(batch, response.batch, frames)
            return response

        return await self._in_slices(self._labelled, draw, _sample_deadline(request, self._image_size))

    async def GetStats(self, request: pb.GetStatsRequest, context: Context) -> pb.GetStatsResponse:
        """Answers with the store's figures."""
        stats = await self._quick.run(self._open().stats, current_caller().account)
        texts = {name: value for name, value in stats.items() if isinstance(value, str)}
        figures = {name: float(value) for name, value in stats.items() if not isinstance(value, str)}
        return pb.GetStatsResponse(figures=figures, texts=texts)

    def _open(self) -> ReplayStore:
        if self._store is None:
            raise ServerUnavailable("the server is still opening its store: try again in a moment")
        return self._store

    async def _in_slices(self, workers: Workers, draw: Callable[[float], Result], deadline_s: float) -> Result:
        """Waits for a sample in short slices, each in a thread's turn of its own.

        So those who wait do not keep the threads from those whose data are there, and no thread waits on in the store
        after the client has gone or the server was stopped.
        """
        client, start_s = current_caller().account, time.monotonic()

        def attempt() -> Result | None:
            begun_s = time.monotonic()
            slice_s = min(max(deadline_s - begun_s, 0.0), _SLICE_S)
            try:
                return draw(slice_s)
            except ServerUnavailable as error:
                now_s = time.monotonic()
                if self._closing or now_s >= deadline_s or now_s - begun_s < slice_s:
                    raise ServerUnavailable(f"{error} (waited {now_s - start_s:.1f} s in all)") from error
                return None

        while (found := await workers.run(attempt, client)) is None:
            pass
        return found

    def _append(self, store: ReplayStore, message: Any) -> pb.AppendEpisodeResponse:
        with structlog.contextvars.bound_contextvars(
            robot=message.collector[:_LOGGED], episode=message.uuid[:_LOGGED], policy_version=message.policy_version
        ):
            try:
                episode = codec.decode_episode(message, self._image_size)
                is_new = store.append(episode, codec.sent_digest(message, episode))
            except QtOptError as error:
                log.warning("episode refused", kind=type(error).__name__, error=str(error))
                raise
            if is_new:
                self._metrics.stored(episode)
            log.debug("episode stored", is_new=is_new, outcome=episode.outcome.name.lower())
        return pb.AppendEpisodeResponse(is_new=is_new)


class ReplayClient:
    """A remote store: an EpisodeSink, TransitionSource, TargetSink and BatchSource; used by any number of threads.

    Args:
        channel: the connection.
        image_size: (height, width) [pixels] of the server's images, as the handshake told.
    """

    def __init__(self, channel: Channel, image_size: tuple[int, int]) -> None:
        self._channel = channel
        self._stub = ReplayServiceStub(channel.grpc)
        self._most_rows = most_rows(image_size)
        self._image_bytes = image_size[0] * image_size[1] * 3  # as they travel; raw until the first have come

    def append(self, episode: Episode) -> bool:
        """Stores an episode durably; see ``EpisodeSink.append``. Tried again when no answer comes: it is idempotent."""
        request = pb.AppendEpisodeRequest()
        codec.encode_episode(episode, request.episode, jpeg=self._channel.config.jpeg)
        size = request.ByteSize()
        return self._channel.call(self._stub.AppendEpisode, request, "append episode", size=size).is_new

    def sample_transitions(self, count: int, timeout_s: float) -> Transitions:
        """Returns ``count`` transitions to label; large images come in several calls."""

        def draw(request: pb.SampleRequest, within_s: float) -> Transitions:
            call = self._stub.SampleTransitions
            response = self._channel.call(call, request, "sample transitions", timeout_s=within_s)
            self._learn_size(response.transitions.next)
            return codec.decode_transitions(response.transitions)

        parts = list(self._in_chunks(draw, count, timeout_s))
        return parts[0] if len(parts) == 1 else _join_transitions(parts)

    def put_targets(self, targets: Targets) -> None:
        """Enters labels, many in several calls; see ``TargetSink.put_targets``."""
        for start in range(0, len(targets), SAMPLE_LIMIT):
            rows = slice(start, start + SAMPLE_LIMIT)
            part = Targets(targets.position[rows], targets.value[rows], targets.model_version)
            request = pb.PutTargetsRequest(targets=codec.encode_targets(part))
            self._channel.call(self._stub.PutTargets, request, "put targets")

    def sample_labelled(self, count: int, timeout_s: float) -> LabelledBatch:
        """Returns ``count`` labelled transitions; large images come in several calls."""

        def draw(request: pb.SampleRequest, within_s: float) -> LabelledBatch:
            call = self._stub.SampleLabelled
            response = self._channel.call(call, request, "sample labelled", timeout_s=within_s)
            self._learn_size(response.batch.observation)
            return codec.decode_labelled(response.batch)

        parts = list(self._in_chunks(draw, count, timeout_s))
        return parts[0] if len(parts) == 1 else _join_labelled(parts)

    def stats(self) -> dict[str, float | str]:
        """Returns the store's figures and texts by name."""
        answer = self._channel.call(self._stub.GetStats, pb.GetStatsRequest(), "get stats")
        return {**answer.figures, **answer.texts}

    def _in_chunks(
        self, draw: Callable[[pb.SampleRequest, float], Result], count: int, timeout_s: float
    ) -> Iterator[Result]:
        if count < 1 or timeout_s < 0:
            raise SchemaMismatch(f"sample: found count {count} and timeout {timeout_s} s, expected at least 1 and 0 s")
        deadline_s = time.monotonic() + timeout_s
        while count:
            begun_s = time.monotonic()
            left_s = max(deadline_s - begun_s, 0.001)
            asked_s = min(left_s, LONGEST_WAIT_S)
            chunk = min(count, self._most_rows, max(1, CHUNK_BYTES // self._image_bytes))
            try:
                found = draw(pb.SampleRequest(count=chunk, timeout_s=asked_s), asked_s + _GRACE_S)
            except ServerUnavailable:
                now_s = time.monotonic()
                if now_s >= deadline_s or now_s - begun_s < asked_s:  # it was not for want of data
                    raise
                continue
            yield found
            count -= chunk

    def _learn_size(self, message: types_pb.Observations) -> None:
        """Takes note of how many bytes an image has on the wire: of JPEGs more fit into one call."""
        if message.image.frames:
            self._image_bytes = message.image.ByteSize() // len(message.image.frames)


def _sample_deadline(request: pb.SampleRequest, image_size: tuple[int, int]) -> float:
    most = most_rows(image_size)
    if not 1 <= request.count <= most:
        raise SchemaMismatch(
            f"sample: found count {request.count}, expected 1 to {most}, as many images of {image_size[0]}x"
            f"{image_size[1]} pixels as an answer holds: ask for less at a time"
        )
    if not 0.0 <= request.timeout_s <= 3600.0:
        raise SchemaMismatch(f"sample: found timeout_s {request.timeout_s}, expected 0 to 3600 s")
    return time.monotonic() + min(request.timeout_s, LONGEST_WAIT_S)


def most_rows(image_size: tuple[int, int]) -> int:
    """Returns how many rows one sampling call may ask for: with raw images they fit into an answer."""
    return max(1, min(SAMPLE_LIMIT, MESSAGE_LIMIT_BYTES // (3 * image_size[0] * image_size[1] + _ROW_BYTES)))


def _join_observations(parts: list[Observations]) -> Observations:
    return Observations(
        image=np.concatenate([part.image for part in parts]),
        gripper_closed=np.concatenate([part.gripper_closed for part in parts]),
        height_to_bottom=np.concatenate([part.height_to_bottom for part in parts]),
    )


def _join_transitions(parts: list[Transitions]) -> Transitions:
    return Transitions(
        position=np.concatenate([part.position for part in parts]),
        reward=np.concatenate([part.reward for part in parts]),
        terminal=np.concatenate([part.terminal for part in parts]),
        next=_join_observations([part.next for part in parts]),
        steps_left=np.concatenate([part.steps_left for part in parts]),
        success=np.concatenate([part.success for part in parts]),
    )


def _join_labelled(parts: list[LabelledBatch]) -> LabelledBatch:
    return LabelledBatch(
        position=np.concatenate([part.position for part in parts]),
        observation=_join_observations([part.observation for part in parts]),
        action=np.concatenate([part.action for part in parts]),
        tool_pose=np.concatenate([part.tool_pose for part in parts]),
        target=np.concatenate([part.target for part in parts]),
        model_version=np.concatenate([part.model_version for part in parts]),
        age_s=np.concatenate([part.age_s for part in parts]),
    )
