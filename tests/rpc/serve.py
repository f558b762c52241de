"""A server process for tests: ``python -m tests.rpc.serve PORT`` prints its port and serves until it is killed."""

import sys
import threading

from qtopt.rpc import BackgroundServer, ServerConfig, Services
from tests.rpc.stores import DictStore

if __name__ == "__main__":
    with BackgroundServer(ServerConfig(port=int(sys.argv[1])), Services((16, 16), DictStore)) as server:
        sys.stdout.write(f"{server.port}\n")
        sys.stdout.flush()
        threading.Event().wait()
