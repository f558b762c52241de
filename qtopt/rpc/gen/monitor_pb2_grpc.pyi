from typing import Any

import grpc
import grpc.aio

from qtopt.rpc.gen import monitor_pb2

class MonitorServiceStub:
    def __init__(self, channel: grpc.Channel) -> None: ...
    Report: grpc.UnaryUnaryMultiCallable[monitor_pb2.ReportRequest, monitor_pb2.ReportResponse]
    GetFigures: grpc.UnaryUnaryMultiCallable[monitor_pb2.GetFiguresRequest, monitor_pb2.GetFiguresResponse]

class MonitorServiceServicer:
    async def Report(self, request: monitor_pb2.ReportRequest, context: grpc.aio.ServicerContext[monitor_pb2.ReportRequest, monitor_pb2.ReportResponse]) -> monitor_pb2.ReportResponse: ...
    async def GetFigures(self, request: monitor_pb2.GetFiguresRequest, context: grpc.aio.ServicerContext[monitor_pb2.GetFiguresRequest, monitor_pb2.GetFiguresResponse]) -> monitor_pb2.GetFiguresResponse: ...

def add_MonitorServiceServicer_to_server(
    servicer: MonitorServiceServicer, server: grpc.aio.Server | Any
) -> None: ...
