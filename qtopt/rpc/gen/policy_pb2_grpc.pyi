from typing import Any

import grpc
import grpc.aio

from qtopt.rpc.gen import policy_pb2

class PolicyServiceStub:
    def __init__(self, channel: grpc.Channel) -> None: ...
    BeginEpisode: grpc.UnaryUnaryMultiCallable[policy_pb2.BeginEpisodeRequest, policy_pb2.BeginEpisodeResponse]
    SelectAction: grpc.UnaryUnaryMultiCallable[policy_pb2.SelectActionRequest, policy_pb2.SelectActionResponse]

class PolicyServiceServicer:
    async def BeginEpisode(self, request: policy_pb2.BeginEpisodeRequest, context: grpc.aio.ServicerContext[policy_pb2.BeginEpisodeRequest, policy_pb2.BeginEpisodeResponse]) -> policy_pb2.BeginEpisodeResponse: ...
    async def SelectAction(self, request: policy_pb2.SelectActionRequest, context: grpc.aio.ServicerContext[policy_pb2.SelectActionRequest, policy_pb2.SelectActionResponse]) -> policy_pb2.SelectActionResponse: ...

def add_PolicyServiceServicer_to_server(
    servicer: PolicyServiceServicer, server: grpc.aio.Server | Any
) -> None: ...
