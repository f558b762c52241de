"""What Prometheus gets of a role: the figures of the live table, under names and units of its own."""

import contextlib
import dataclasses
import sqlite3
import urllib.request

import psutil
import pytest
from prometheus_client.parser import text_string_to_metric_families

from qtopt.apps import collected, doctor, label, room, train
from qtopt.apps.metrics import FigureCollector, MetricsConfig, expose
from qtopt.apps.reporting import Reporting
from qtopt.errors import ConfigError
from qtopt.loops.collect import Collected
from qtopt.loops.label import Labelled
from qtopt.loops.train import Trained
from qtopt.replay import EpisodeStore, StoreFormat
from qtopt.rpc import BackgroundServer, ServerConfig, ServerMetrics, Services
from qtopt.types import Outcome
from tests.episodes import make_episode
from tests.waiting import wait_until


def scrape(port):
    """Returns value by name and labels of everything on a port."""
    with urllib.request.urlopen(f"http://127.0.0.1:{port}/metrics", timeout=10) as answer:
        text = answer.read().decode()
    return {
        (sample.name, *sorted(sample.labels.items())): sample.value
        for family in text_string_to_metric_families(text)
        for sample in family.samples
    }


def samples(role, figures):
    """Returns value by name and labels of what is exported of figures."""
    families = FigureCollector(role, lambda: figures).collect()
    return {(each.name, *sorted(each.labels.items())): each.value for family in families for each in family.samples}


class Board:
    """A Reporter that keeps the last report."""

    def report(self, role, figures):
        self.role, self.figures = role, figures


def test_a_collector_tells_the_same_to_the_table_and_to_prometheus(rng, tmp_path):
    board, now = Board(), [100.0]
    figures = collected.Figures(lambda: now[0])
    reporting = Reporting(board, "collector/arm-3", figures, disk=tmp_path, every_s=0.0)
    for success, version in ((True, 1), (False, 4), (True, 4)):
        episode = make_episode(rng, 3, success=success)
        reporting.take(Collected(episode, 2, version, 1.0, 0.5, 0.5))
    unknown = dataclasses.replace(make_episode(rng, 3), outcome=Outcome.UNKNOWN)
    now[0] = 107.0
    reporting.take(Collected(unknown, 3, 4, 1.0, 0.5, 0.5, set_aside=2))
    with expose(MetricsConfig(port=0), reporting.role, reporting.figures) as port:
        found = scrape(port)
    robot = ("robot", "arm-3")
    assert found["qtopt_episodes_total", ("outcome", "success"), robot] == board.figures["outcome_success"] == 2
    assert found["qtopt_episodes_total", ("outcome", "unknown"), robot] == 1
    assert found["qtopt_episodes_total", ("outcome", "dropped"), robot] == 0
    assert found["qtopt_spool_episodes", robot] == board.figures["spooled"] == 3
    assert found["qtopt_spool_set_aside_episodes", robot] == board.figures["set_aside"] == 2
    assert found["qtopt_policy_version", robot] == 4
    assert found["qtopt_policy_age_seconds", robot] == board.figures["policy_age_s"] == 7.0
    assert found["qtopt_success_ratio", robot] == board.figures["success_recent"] == 0.5
    assert found["qtopt_behaviour_success_ratio", ("behaviour", "scripted"), robot] == 0.5
    assert found["qtopt_time_ratio", ("part", "environment"), robot] == pytest.approx(0.5, abs=0.01)
    assert found["qtopt_disk_free_bytes", robot] > 0
    assert found["qtopt_role_info", ("role", "collector"), ("version", "0.1.0")] == 1
    assert found["process_resident_memory_bytes",] > 1e6


def test_an_arm_that_never_got_networks_tells_how_long_it_acts_by_script(rng):
    now = [100.0]
    figures = collected.Figures(lambda: now[0])
    for now[0] in (100.0, 4000.0):
        figures.add(Collected(make_episode(rng, 3), 0, 0, 1.0, 0.5, 0.5))
    found = samples("collector/arm-3", figures.figures())
    assert found["qtopt_policy_version", ("robot", "arm-3")] == 0
    assert found["qtopt_policy_age_seconds", ("robot", "arm-3")] == 3900.0


def test_updater_and_trainer_tell_how_old_their_networks_are():
    now = [100.0]
    labelling, training = label.Figures(lambda: now[0]), train.Figures(lambda: now[0])
    for role, figures in (("updater/0", labelling), ("trainer", training)):
        assert not [name for name, *_ in samples(role, figures.figures()) if name == "qtopt_policy_age_seconds"]
    labelling.add(Labelled(64, 3, 0.5, 0.1, 0.2))
    training.add(Trained(7, {}, published=4))
    now[0] = 107.0
    labelling.add(Labelled(64, 3, 0.5, 0.1, 0.2))
    training.add(Trained(8, {}))
    assert samples("updater/0", labelling.figures())["qtopt_policy_age_seconds", ("name", "0")] == 7.0
    assert samples("trainer", training.figures())["qtopt_policy_age_seconds",] == 7.0


def test_units_are_base_units_and_rates_are_left_to_prometheus():
    found = samples("trainer", {"step": 7.0, "steps_per_s": 3.0, "wait_ms": 250.0, "gradient_norm": 2.0})
    assert found["qtopt_gradient_steps_total",] == 7.0
    assert found["qtopt_batch_wait_seconds",] == 0.25
    assert found["qtopt_trainer_gradient_norm",] == 2.0
    assert not [name for name, *_ in found if "per_s" in name]


def test_the_store_s_figures_have_labels():
    figures = {"label_age_p95_s": 9.0, "waiting_trainers": 1.0, "calls_inside_append": 3.0, "steps": 5.0}
    found = samples("server", figures)
    assert found["qtopt_label_age_seconds", ("percentile", "p95")] == 9.0
    assert found["qtopt_limiter_waiting_calls", ("side", "trainers")] == 1.0
    assert found["qtopt_calls_inside", ("kind", "append")] == 3.0
    assert found["qtopt_store_steps",] == 5.0


def test_it_is_told_that_episodes_which_are_not_served_count_among_those_of_the_store(rng, tmp_path):
    with EpisodeStore(tmp_path, StoreFormat.for_images(4)) as store:
        collector = FigureCollector("server", lambda: figures_of(store))
        told = {each.name: each.documentation for each in collector.collect()}
    assert "quarantined ones included" in told["qtopt_store_episodes"]
    assert "not served" in told["qtopt_store_quarantined"]


def test_what_others_could_read_needs_to_be_asked_for():
    with pytest.raises(ConfigError, match="refusing to show metrics on"):
        MetricsConfig(port=9100, host="0.0.0.0")
    MetricsConfig(port=9100, host="0.0.0.0", allow_remote=True)
    with pytest.raises(ConfigError, match="expected 0 to 65535"):
        MetricsConfig(port=70000)
    with expose(MetricsConfig(), "trainer", dict) as port:
        assert port is None


def test_a_port_in_use_is_named():
    with (
        expose(MetricsConfig(port=0), "trainer", dict) as port,
        pytest.raises(ConfigError, match=f"127.0.0.1:{port}: Address already in use"),
        expose(MetricsConfig(port=port), "trainer", dict),
    ):
        pass


def test_the_server_counts_episodes_of_so_many_robots_by_name(rng):
    metrics = ServerMetrics()
    for number in range(300):
        metrics.stored(dataclasses.replace(make_episode(rng, 1, size_px=4), collector=f"arm-{number}"))
    value = metrics.registry.get_sample_value
    assert value("qtopt_episodes_stored_total", {"robot": "arm-255", "outcome": "success"}) == 1
    assert value("qtopt_episodes_stored_total", {"robot": "others", "outcome": "success"}) == 44


def test_a_server_that_starts_again_counts_the_robots_of_its_store_from_0(rng, tmp_path):
    with EpisodeStore(tmp_path, StoreFormat.for_images(4)) as store:
        for name in ("arm-0", "arm-1", "arm-2", "arm-1"):
            store.append(dataclasses.replace(make_episode(rng, 1, size_px=4), collector=name))
    with EpisodeStore(tmp_path) as store:
        assert set(store.collectors(3)) == {"arm-1", "arm-2"}
        metrics = ServerMetrics()
        metrics.expect(store.collectors(10))
    value = metrics.registry.get_sample_value
    for robot in ("arm-0", "arm-1", "arm-2"):
        for outcome in Outcome:
            assert value("qtopt_episodes_stored_total", {"robot": robot, "outcome": outcome.name.lower()}) == 0
    metrics.stored(dataclasses.replace(make_episode(rng, 1, size_px=4), collector="arm-1"))
    assert value("qtopt_episodes_stored_total", {"robot": "arm-1", "outcome": "success"}) == 1


def test_showing_a_store_s_figures_again_and_again_opens_no_files(rng, tmp_path):
    with (
        EpisodeStore(tmp_path / "store", StoreFormat.for_images(4)) as store,
        expose(MetricsConfig(port=0), "server", lambda: figures_of(store)) as port,
    ):
        store.append(make_episode(rng, 1, size_px=4))
        scrape(port)
        before = psutil.Process().num_fds()
        for _ in range(20):
            assert scrape(port)["qtopt_store_episodes",] == 1
        wait_until(lambda: psutil.Process().num_fds() <= before)  # the last answer's thread is about to end


def figures_of(store):
    """Returns a store's figures as a server shows them."""
    return {name: value for name, value in store.stats().items() if isinstance(value, float)}


def test_an_episode_without_a_collector_s_name_makes_no_robot_of_its_own(rng, tmp_path):
    with EpisodeStore(tmp_path, StoreFormat.for_images(4)) as store:
        store.append(dataclasses.replace(make_episode(rng, 1, size_px=4), collector="arm-0"))
        store.append(make_episode(rng, 1, size_px=4))
        with contextlib.closing(sqlite3.connect(tmp_path / "catalogue.db")) as catalogue, catalogue:
            catalogue.execute("UPDATE episode SET facts = '{}' WHERE first_position > 0")
        assert store.collectors(10) == ["arm-0"]


def test_the_server_sums_up_how_calls_went():
    metrics = ServerMetrics()
    for number in range(200):
        metrics.answered("/qtopt.v1.ReplayService/AppendEpisode", "OK", 0.004 if number < 195 else 3.0)
    metrics.answered("/qtopt.v1.ReplayService/AppendEpisode", "DATA_LOSS", 0.004)
    metrics.answered("/made/up", "UNIMPLEMENTED", 0.0)
    figures = metrics.figures()
    assert figures["calls_refused"] == 2
    assert figures["append_p99_below_s"] == 5.0
    assert figures["append_mean_s"] == pytest.approx((196 * 0.004 + 5 * 3.0) / 201)
    assert metrics.registry.get_sample_value("qtopt_calls_total", {"method": "others", "code": "UNIMPLEMENTED"}) == 1


def test_the_doctor_asks_a_server_for_its_health():
    with BackgroundServer(ServerConfig(port=0), Services((16, 16), lambda: None)) as server:
        found = doctor._server(doctor.Asked(server.address))
        assert "ReplayService NOT_SERVING, ModelService SERVING" in found.seen  # it has no store
        assert not found.good
    assert "nobody answered" in doctor._server(doctor.Asked(server.address)).seen
    assert "expected host:port" in doctor._server(doctor.Asked("nowhere")).seen


def test_a_disk_says_what_is_wrong_with_it(tmp_path):
    assert room.trouble(tmp_path / "not" / "there", 0.0) is None
    assert "MB left, expected" in room.trouble(tmp_path, 1e12)
    found = room.disk_figures(tmp_path / "x")
    assert 0 < found["disk_free_bytes"] <= found["disk_bytes"]
