"""Records what this release sends, answers and writes: ``python -m tests.compat.record``, once for each release.

The file is named after the package's version and stays in the repository; what is there is never overwritten.
"""

import sys
import tempfile
import zipfile
from pathlib import Path

import grpc

import qtopt
from qtopt.replay import EpisodeStore
from qtopt.rpc import BackgroundServer, ServerConfig
from robot_bridge import spooled
from tests.compat import calls

RECORDED = Path(__file__).parent / "recorded"


def record(root, to):
    """Writes requests, answers, a store of a sealed and two landed episodes, and a spooled file."""
    store, services = calls.services(root / "served")
    pairs = []
    with (
        store,
        BackgroundServer(ServerConfig(port=0), services) as server,
        grpc.insecure_channel(server.address) as channel,
    ):
        for name, request in calls.requests():
            data = request.SerializeToString(deterministic=True)
            pairs.append((name, data, channel.unary_unary(calls.path_of(name))(data, timeout=20.0)))
    with EpisodeStore(root / "store", calls.FORMAT) as own:
        for number, episode in enumerate(calls.episodes()):
            own.append(episode)
            if number == 0:
                own.seal()
    with zipfile.ZipFile(to, "x", zipfile.ZIP_DEFLATED) as archive:
        for number, (name, request, answer) in enumerate(pairs):
            archive.writestr(f"calls/{number:02d}-{name}.request", request)
            archive.writestr(f"calls/{number:02d}-{name}.answer", answer)
        for path in sorted((root / "store").rglob("*")):
            if path.is_file() and path.name != "lock":
                archive.write(path, f"store/{path.relative_to(root / 'store')}")
        archive.writestr("episode.safetensors", spooled.encode_episode(calls.episodes()[1]))


if __name__ == "__main__":
    target = RECORDED / f"{qtopt.__version__}.zip"
    with tempfile.TemporaryDirectory() as room:
        record(Path(room), target)
    sys.stdout.write(f"{target}: {target.stat().st_size} bytes\n")
