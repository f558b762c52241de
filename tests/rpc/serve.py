"""A server process for tests: ``python -m tests.rpc.serve PORT STORE`` prints its port and serves until killed."""

import sys
import threading
from pathlib import Path

from qtopt.replay import EpisodeStore, StoreFormat
from qtopt.rpc import BackgroundServer, ModelRegistry, ServerConfig, Services

if __name__ == "__main__":
    port, store = int(sys.argv[1]), Path(sys.argv[2])
    services = Services(
        (16, 16),
        lambda: EpisodeStore(store, StoreFormat.for_images(16)),
        registry=ModelRegistry(store.with_suffix(".models")),
    )
    with BackgroundServer(ServerConfig(port=port), services) as server:
        sys.stdout.write(f"{server.port}\n")
        sys.stdout.flush()
        threading.Event().wait()
