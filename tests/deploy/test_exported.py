"""Each role's figures, as its own class sums them up, cover what dashboards and alerts ask for.

The same is seen of real processes in tests/apps/test_end_to_end.py; this one says sooner which name is missing.
"""

import numpy as np

from qtopt.apps import collected, evaluate, label, train
from qtopt.apps.metrics import FigureCollector
from qtopt.apps.reporting import Reporting
from qtopt.apps.serve import NewestNetwork
from qtopt.loops.collect import Collected
from qtopt.loops.label import Labelled
from qtopt.loops.train import Trained
from qtopt.replay import MemoryStore, StoreFormat
from qtopt.rpc import BackgroundServer, FigureBoard, ModelRegistry, ServerConfig, Services, connect
from tests.deploy.metric_names import used_names
from tests.episodes import make_episode

TURNS = {
    "trainer": (train.Figures(), Trained(7, {"loss": 0.5}, label_age_s=1.0, label_lag=2.0, wait_s=0.1, published=3)),
    "updater/0": (label.Figures(), Labelled(64, 3, 0.5, 0.1, 0.2)),
    "evaluator": (evaluate.Figures(), {"policy": "learned", "success": 0.5, "version": 3}),
}


def names(collector):
    return {sample.name for family in collector.collect() for sample in family.samples}


def test_what_is_asked_for_is_exported(rng, tmp_path):
    board = FigureBoard()
    episode = make_episode(rng, 3)
    collector = collected.Figures(), Collected(episode, 0, 3, 1.0, 0.5, 0.1)
    exported = {"process_resident_memory_bytes"}
    for role, (figures, turn) in {**TURNS, "collector/arm-0": collector}.items():
        reporting = Reporting(board, role, figures, disk=tmp_path)
        reporting.take(turn)
        assert board.figures()[role].figures.keys() == reporting.figures().keys()
        exported |= names(FigureCollector(role, reporting.figures))
    registry = ModelRegistry()
    with MemoryStore(StoreFormat.for_images(16)) as store:
        services = Services((16, 16), lambda: store, registry=registry)
        with BackgroundServer(ServerConfig(port=0), services) as server, connect(server.address) as connection:
            connection.replay.append(episode)
            registry.publish(1, b"networks")
            stats = {name: value for name, value in store.stats().items() if isinstance(value, float)}
            figures = stats | registry.figures() | NewestNetwork(registry).figures() | server.figures()
            exported |= names(FigureCollector("server", lambda: figures)) | names(services.metrics.registry)
    assert used_names() - exported == set()
    assert np.all([name.startswith(("qtopt_", "process_")) for name in exported])
