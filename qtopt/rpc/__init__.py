"""gRPC between the roles: channel, codec, and a servicer and a client per service. A client *is* the local interface.

Example::

with connect("127.0.0.1:50051", image_size=(72, 72)) as connection:
    connection.replay.append(episode)  # EpisodeSink, TransitionSource, TargetSink, BatchSource
    connection.model.latest()  # ModelSource, ModelSink
    connection.monitor.report("trainer", {"loss": 0.3})  # Reporter
    connection.policy().begin_episode(rng)  # Policy
"""

import os

# gRPC's core otherwise writes lines of its own over the live table; it reads this when it is loaded.
os.environ.setdefault("GRPC_VERBOSITY", "ERROR")

from qtopt.rpc.audit import Audit
from qtopt.rpc.background import BackgroundServer
from qtopt.rpc.board import FigureBoard, RoleFigures
from qtopt.rpc.connection import Connection, connect
from qtopt.rpc.limits import Limits
from qtopt.rpc.metrics import ServerMetrics
from qtopt.rpc.model import ModelClient
from qtopt.rpc.monitor import MonitorClient
from qtopt.rpc.policy import PolicyClient
from qtopt.rpc.registry import ModelRegistry
from qtopt.rpc.replay import ReplayClient, ReplayStore
from qtopt.rpc.server import Server, Services
from qtopt.rpc.settings import DEFAULT_PORT, ClientConfig, ServerConfig

__all__ = [
    "DEFAULT_PORT",
    "Audit",
    "BackgroundServer",
    "ClientConfig",
    "Connection",
    "FigureBoard",
    "Limits",
    "ModelClient",
    "ModelRegistry",
    "MonitorClient",
    "PolicyClient",
    "ReplayClient",
    "ReplayStore",
    "RoleFigures",
    "Server",
    "ServerConfig",
    "ServerMetrics",
    "Services",
    "connect",
]
