from typing import Any

import grpc
import grpc.aio

from qtopt.rpc.gen import replay_pb2

class ReplayServiceStub:
    def __init__(self, channel: grpc.Channel) -> None: ...
    Handshake: grpc.UnaryUnaryMultiCallable[replay_pb2.HandshakeRequest, replay_pb2.HandshakeResponse]
    AppendEpisode: grpc.UnaryUnaryMultiCallable[replay_pb2.AppendEpisodeRequest, replay_pb2.AppendEpisodeResponse]
    SampleTransitions: grpc.UnaryUnaryMultiCallable[replay_pb2.SampleRequest, replay_pb2.SampleTransitionsResponse]
    PutTargets: grpc.UnaryUnaryMultiCallable[replay_pb2.PutTargetsRequest, replay_pb2.PutTargetsResponse]
    SampleLabelled: grpc.UnaryUnaryMultiCallable[replay_pb2.SampleRequest, replay_pb2.SampleLabelledResponse]
    GetStats: grpc.UnaryUnaryMultiCallable[replay_pb2.GetStatsRequest, replay_pb2.GetStatsResponse]

class ReplayServiceServicer:
    async def Handshake(self, request: replay_pb2.HandshakeRequest, context: grpc.aio.ServicerContext[replay_pb2.HandshakeRequest, replay_pb2.HandshakeResponse]) -> replay_pb2.HandshakeResponse: ...
    async def AppendEpisode(self, request: replay_pb2.AppendEpisodeRequest, context: grpc.aio.ServicerContext[replay_pb2.AppendEpisodeRequest, replay_pb2.AppendEpisodeResponse]) -> replay_pb2.AppendEpisodeResponse: ...
    async def SampleTransitions(self, request: replay_pb2.SampleRequest, context: grpc.aio.ServicerContext[replay_pb2.SampleRequest, replay_pb2.SampleTransitionsResponse]) -> replay_pb2.SampleTransitionsResponse: ...
    async def PutTargets(self, request: replay_pb2.PutTargetsRequest, context: grpc.aio.ServicerContext[replay_pb2.PutTargetsRequest, replay_pb2.PutTargetsResponse]) -> replay_pb2.PutTargetsResponse: ...
    async def SampleLabelled(self, request: replay_pb2.SampleRequest, context: grpc.aio.ServicerContext[replay_pb2.SampleRequest, replay_pb2.SampleLabelledResponse]) -> replay_pb2.SampleLabelledResponse: ...
    async def GetStats(self, request: replay_pb2.GetStatsRequest, context: grpc.aio.ServicerContext[replay_pb2.GetStatsRequest, replay_pb2.GetStatsResponse]) -> replay_pb2.GetStatsResponse: ...

def add_ReplayServiceServicer_to_server(
    servicer: ReplayServiceServicer, server: grpc.aio.Server | Any
) -> None: ...
