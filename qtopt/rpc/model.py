"""The registry of published networks over gRPC."""

import asyncio
import time
from typing import Final

from qtopt.rpc import codec
from qtopt.rpc.callers import current_caller
from qtopt.rpc.channel import Channel
from qtopt.rpc.gen import model_pb2 as pb
from qtopt.rpc.gen.model_pb2_grpc import ModelServiceServicer, ModelServiceStub
from qtopt.rpc.interceptors import Context
from qtopt.rpc.registry import ModelRegistry
from qtopt.rpc.settings import MESSAGE_LIMIT_BYTES, SLOWEST_LINK
from qtopt.rpc.workers import Workers
from qtopt.types import ModelSnapshot

MAX_WAIT_S: Final = 60.0
"""A client that asks to be told of newer networks is answered after this time at the latest."""
_LOOK_S: Final = 0.1
_GRACE_S: Final = 10.0
_AT_ONCE_BYTES: Final = int(_GRACE_S / 2 * SLOWEST_LINK)
"""Networks that come within the deadline whatever the link. Of larger ones the size comes first: a deadline for any
size would be a quarter of an hour, for which a server that hangs would keep a robot waiting."""


class ModelServicer(ModelServiceServicer):
    """Serves a registry."""

    def __init__(self, registry: ModelRegistry) -> None:
        self._registry = registry
        self._workers = Workers("models", 2)

    async def close(self) -> None:
        """Drops what waits and ends what runs."""
        await self._workers.close()

    async def Publish(self, request: pb.PublishRequest, context: Context) -> pb.PublishResponse:
        """Answers with the version once the networks are on disk."""

        def work() -> int:
            codec.check_payload(request.payload, request.digest)
            return self._registry.publish(request.step, request.payload)

        return pb.PublishResponse(version=await self._workers.run(work, current_caller().account))

    async def GetLatest(self, request: pb.GetLatestRequest, context: Context) -> pb.GetLatestResponse:
        """Answers with newer networks or their size, or without any after ``wait_s``; who waits holds no thread."""
        deadline_s = time.monotonic() + min(request.wait_s, MAX_WAIT_S)
        while (snapshot := self._registry.latest(request.newer_than)) is None and time.monotonic() < deadline_s:
            await asyncio.sleep(_LOOK_S)
        if snapshot is None:
            return pb.GetLatestResponse()
        found, size = snapshot, len(snapshot.payload)

        def work() -> pb.GetLatestResponse:
            if 0 < request.most_bytes < size:
                return pb.GetLatestResponse(left_out_bytes=size)
            return pb.GetLatestResponse(snapshot=codec.encode_snapshot(found))

        return await self._workers.run(work, current_caller().account)


class ModelClient:
    """A remote registry: a ModelSource and a ModelSink; used by any number of threads."""

    def __init__(self, channel: Channel) -> None:
        self._channel = channel
        self._stub = ModelServiceStub(channel.grpc)

    def latest(self, newer_than: int = 0, *, wait_s: float = 0.0) -> ModelSnapshot | None:
        """Returns the newest snapshot if its version is above ``newer_than``, else None, after up to ``wait_s``.

        A server that has lost its networks counts anew, and answers with what it has: its version is a lower one then.
        Large ones have the time that a slow link needs for them, once the server has told their size.

        Raises:
            CheckpointError: it was damaged on the way.
            ServerUnavailable: nobody answered.
        """
        request = pb.GetLatestRequest(newer_than=newer_than, wait_s=wait_s, most_bytes=_AT_ONCE_BYTES)
        answer = self._get(request, min(wait_s, MAX_WAIT_S) + _GRACE_S)
        if answer.left_out_bytes:
            size = min(answer.left_out_bytes, MESSAGE_LIMIT_BYTES)
            answer = self._get(pb.GetLatestRequest(newer_than=newer_than), _GRACE_S + size / SLOWEST_LINK)
        return codec.decode_snapshot(answer.snapshot) if answer.HasField("snapshot") else None

    def publish(self, step: int, payload: bytes) -> int:
        """Publishes safetensors bytes; returns the version given. Idempotent, so tried again when no answer comes."""
        request = pb.PublishRequest(step=step, payload=payload, digest=codec.payload_digest(payload))
        return self._channel.call(self._stub.Publish, request, "publish networks", size=request.ByteSize()).version

    def _get(self, request: pb.GetLatestRequest, within_s: float) -> pb.GetLatestResponse:
        return self._channel.call(self._stub.GetLatest, request, "get latest networks", timeout_s=within_s)
