"""The roles' figures over gRPC."""

from collections.abc import Mapping
from typing import Final

from qtopt.rpc.board import FigureBoard, RoleFigures
from qtopt.rpc.channel import Channel
from qtopt.rpc.gen import monitor_pb2 as pb
from qtopt.rpc.gen.monitor_pb2_grpc import MonitorServiceServicer, MonitorServiceStub
from qtopt.rpc.interceptors import Context

_DEADLINE_S: Final = 5.0


class MonitorServicer(MonitorServiceServicer):
    """Serves a board."""

    def __init__(self, board: FigureBoard) -> None:
        self._board = board

    async def Report(self, request: pb.ReportRequest, context: Context) -> pb.ReportResponse:
        """Takes a role's figures."""
        self._board.report(request.role, request.figures, request.texts)
        return pb.ReportResponse()

    async def GetFigures(self, request: pb.GetFiguresRequest, context: Context) -> pb.GetFiguresResponse:
        """Answers with all roles' figures."""
        return pb.GetFiguresResponse(
            roles={
                role: pb.RoleFigures(figures=each.figures, texts=each.texts, age_s=each.age_s)
                for role, each in self._board.figures().items()
            }
        )


class MonitorClient:
    """A remote board: a Reporter; used by any number of threads."""

    def __init__(self, channel: Channel) -> None:
        self._channel = channel
        self._stub = MonitorServiceStub(channel.grpc)

    def report(self, role: str, figures: Mapping[str, float], texts: Mapping[str, str] | None = None) -> None:
        """Replaces what ``role`` reported; raises ServerUnavailable when nobody answers."""
        request = pb.ReportRequest(role=role, figures=dict(figures), texts=dict(texts or {}))
        self._channel.call(self._stub.Report, request, "report figures", timeout_s=_DEADLINE_S)

    def figures(self) -> dict[str, RoleFigures]:
        """Returns the newest report of every role, by role."""
        answer = self._channel.call(self._stub.GetFigures, pb.GetFiguresRequest(), "get figures", timeout_s=_DEADLINE_S)
        return {
            role: RoleFigures(dict(each.figures), dict(each.texts), each.age_s) for role, each in answer.roles.items()
        }
