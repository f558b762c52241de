from typing import Any

import grpc
import grpc.aio

from qtopt.rpc.gen import model_pb2

class ModelServiceStub:
    def __init__(self, channel: grpc.Channel) -> None: ...
    Publish: grpc.UnaryUnaryMultiCallable[model_pb2.PublishRequest, model_pb2.PublishResponse]
    GetLatest: grpc.UnaryUnaryMultiCallable[model_pb2.GetLatestRequest, model_pb2.GetLatestResponse]

class ModelServiceServicer:
    async def Publish(self, request: model_pb2.PublishRequest, context: grpc.aio.ServicerContext[model_pb2.PublishRequest, model_pb2.PublishResponse]) -> model_pb2.PublishResponse: ...
    async def GetLatest(self, request: model_pb2.GetLatestRequest, context: grpc.aio.ServicerContext[model_pb2.GetLatestRequest, model_pb2.GetLatestResponse]) -> model_pb2.GetLatestResponse: ...

def add_ModelServiceServicer_to_server(
    servicer: ModelServiceServicer, server: grpc.aio.Server | Any
) -> None: ...
