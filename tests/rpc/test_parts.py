"""The parts that need no server: handshake, figure board, model registry, workers."""

import asyncio
import threading
from contextlib import ExitStack
from functools import partial

import pytest

from qtopt.errors import CheckpointError, ConfigError, SchemaMismatch, ServerUnavailable, StoreFull
from qtopt.rpc import FigureBoard, Limits, ModelRegistry, board, registry
from qtopt.rpc.callers import Caller
from qtopt.rpc.gen import replay_pb2 as pb
from qtopt.rpc.handshake import check_schemas, local_schema
from qtopt.rpc.limits import CallLimiter, Crowded
from qtopt.rpc.roles import Identity, Role
from qtopt.rpc.workers import Workers


def test_handshake_names_every_difference_of_both_sides():
    theirs = pb.Schema(
        schema_version=99, image_height=472, image_width=472, action_fields=["x", "y"], package_version="9.9"
    )
    with pytest.raises(SchemaMismatch) as caught:
        check_schemas(local_schema((72, 72)), theirs)
    for part in ("client 1, server 99", "client 72x72, server 472x472", "server x, y", "world_vector_x", "9.9"):
        assert part in str(caught.value)


def test_handshake_lets_other_releases_and_free_image_sizes_pass():
    theirs = local_schema((72, 72))
    theirs.package_version = "9.9"
    check_schemas(local_schema((72, 72)), theirs)
    check_schemas(local_schema(None), theirs)


class TestFigureBoard:
    def test_newest_report_of_each_role_with_its_age(self):
        now = [100.0]
        figures = FigureBoard(lambda: now[0])
        figures.report("trainer", {"loss": 1.0})
        figures.report("trainer", {"loss": 0.5}, {"state": "learning"})
        now[0] = 103.0
        figures.report("collector/0", {"grasps": 3})
        assert figures.figures() == {
            "collector/0": board.RoleFigures({"grasps": 3}, {}, 0.0),
            "trainer": board.RoleFigures({"loss": 0.5}, {"state": "learning"}, 3.0),
        }

    def test_is_bounded(self):
        figures = FigureBoard()
        for index in range(board.MAX_ROLES + 5):
            figures.report(f"role/{index}", {})
            figures.report("role/0", {})
        assert len(figures.figures()) == board.MAX_ROLES
        assert "role/0" in figures.figures()
        assert "role/1" not in figures.figures()
        for role, numbers, texts in (
            ("", {}, {}),
            ("x", {str(index): 0.0 for index in range(600)}, {}),
            ("x", {}, {"text": "y" * 5000}),
            ("x", {}, {str(index): "y" * 4000 for index in range(17)}),
        ):
            with pytest.raises(SchemaMismatch, match="report"):
                figures.report(role, numbers, texts)


class TestModelRegistry:
    def test_versions_count_up_and_survive_a_restart(self, tmp_path):
        ours = ModelRegistry(tmp_path / "models", keep=2)
        assert ours.latest() is None
        assert [ours.publish(step, b"weights %d" % step) for step in (10, 20, 30)] == [1, 2, 3]
        again = ModelRegistry(tmp_path / "models", keep=2)
        assert again.latest() == ours.latest()
        assert (again.latest().step, again.latest().payload) == (30, b"weights 30")
        assert again.latest(newer_than=3) is None
        assert again.publish(40, b"weights 40") == 4
        assert len(list((tmp_path / "models").iterdir())) == 2

    def test_the_same_publication_again_keeps_its_version(self):
        ours = ModelRegistry()
        assert [ours.publish(1, b"a"), ours.publish(1, b"a"), ours.publish(2, b"a"), ours.publish(1, b"a")] == [
            1,
            1,
            2,
            3,
        ]

    def test_a_damaged_file_is_left_out_and_its_version_not_given_again(self, tmp_path, caplog):
        ours = ModelRegistry(tmp_path)
        ours.publish(1, b"good")
        ours.publish(2, b"bad")
        newest = max(tmp_path.iterdir())
        newest.write_bytes(b"bat")
        (tmp_path / "v00000009.1.partial").write_bytes(b"half")
        again = ModelRegistry(tmp_path)
        assert again.latest().payload == b"good"
        assert "left out" in caplog.text
        assert again.publish(3, b"next") == 3
        assert not list(tmp_path.glob("*.partial"))

    def test_a_full_disk_leaves_the_old_version(self, tmp_path, monkeypatch):
        ours = ModelRegistry(tmp_path)
        ours.publish(1, b"old")

        def full(descriptor):
            raise OSError(28, "No space left on device")

        with monkeypatch.context() as patched:
            patched.setattr(registry.os, "fsync", full)
            with pytest.raises(StoreFull, match="No space left"):
                ours.publish(2, b"new")
        assert ours.version == 1
        assert ours.publish(2, b"new") == 2

    def test_nothing_to_publish_is_refused(self):
        with pytest.raises(CheckpointError):
            ModelRegistry().publish(1, b"")
        with pytest.raises(ConfigError):
            ModelRegistry(keep=0)

    def test_versions_of_a_lost_directory_keep_nobody_from_news(self, tmp_path):
        ours = ModelRegistry(tmp_path / "empty")
        assert ours.latest(newer_than=4711) is None
        threading.Timer(0.05, lambda: ours.publish(50_000, b"x")).start()
        assert ours.wait(4711, 5.0).version == 1
        assert ours.latest(newer_than=4711).version == 1
        assert ours.latest(newer_than=1) is None
        assert ours.wait(1, 0.01) is None

    def test_those_who_wait_are_told(self):
        ours = ModelRegistry()
        threading.Timer(0.05, lambda: ours.publish(1, b"x")).start()
        assert ours.wait(0, 5.0).version == 1
        assert ours.wait(1, 0.01) is None


class TestCallLimiter:
    def test_strangers_of_many_hosts_leave_the_clients_their_share(self):
        limiter = CallLimiter(Limits(general_calls=2, strangers_calls=5), 8)
        viewer = Caller(Identity("a", Role.VIEWER), "viewer a")
        with ExitStack() as calls:
            for host in "abc":
                for _ in range(2 if host != "c" else 1):
                    calls.callback(limiter.enter(Caller(None, f"host {host}"), general=True).leave)
            with pytest.raises(Crowded, match="5 calls of strangers are under way, expected at most 5"):
                calls.callback(limiter.enter(Caller(None, "host c"), general=True).leave)
            with pytest.raises(ServerUnavailable, match="2 calls of this client or host to health"):
                calls.callback(limiter.enter(Caller(None, "host a"), general=True).leave)
            for _ in range(8):
                calls.callback(limiter.enter(viewer, general=False).leave)
            with pytest.raises(Crowded, match="8 calls of all clients"):
                calls.callback(limiter.enter(viewer, general=False).leave)
        for caller in (viewer, Caller(None, "host c")):
            limiter.enter(caller, general=True)

    def test_health_of_all_clients_is_at_most_a_quarter_of_the_calls(self):
        limiter = CallLimiter(Limits(), 8)
        with ExitStack() as calls:
            for name in "ab":
                calls.callback(limiter.enter(Caller(Identity(name, Role.VIEWER), name), general=True).leave)
            with pytest.raises(Crowded, match="2 calls of all clients to health"):
                calls.callback(limiter.enter(Caller(Identity("c", Role.VIEWER), "c"), general=True).leave)


class TestWorkers:
    def test_refuse_when_too_many_wait(self):
        release = threading.Event()

        async def crowd():
            workers = Workers("append", 1, waiting=2, waiting_each=1)
            inside = [asyncio.create_task(workers.run(release.wait, client)) for client in "aab"]
            await asyncio.sleep(0.02)
            assert workers.inside == 3
            for client in "ac":
                with pytest.raises(ServerUnavailable, match="2 calls wait already"):
                    await workers.run(release.wait, client)
            inside.pop().cancel()
            await asyncio.sleep(0.02)
            with pytest.raises(ServerUnavailable, match="1 of them this client's"):
                await workers.run(release.wait, "a")
            release.set()
            assert await asyncio.gather(*inside) == [True, True]
            assert await workers.run(lambda: 5) == 5
            await workers.close()

        asyncio.run(crowd())

    def test_threads_go_to_the_clients_in_turn(self):
        release, ran = threading.Event(), []

        async def crowd():
            workers = Workers("append", 1)
            clients = ["greedy"] * 20 + ["modest", "humble"] + ["greedy"] * 5
            calls = [asyncio.create_task(workers.run(release.wait))]
            calls += [asyncio.create_task(workers.run(partial(ran.append, client), client)) for client in clients]
            await asyncio.sleep(0.02)
            release.set()
            await asyncio.gather(*calls)
            await workers.close()

        asyncio.run(crowd())
        assert ran[:4] == ["greedy", "modest", "humble", "greedy"]
        assert len(ran) == 27

    def test_calls_given_up_do_not_pile_up_behind_a_slow_disk(self):
        release, begun = threading.Event(), []

        def slow():
            begun.append(1)
            release.wait()

        async def impatient():
            workers = Workers("append", 2)
            for _ in range(20):
                with pytest.raises(TimeoutError):
                    await asyncio.wait_for(workers.run(slow), 0.005)
            assert len(begun) == workers.inside == 2
            release.set()
            assert await asyncio.wait_for(workers.run(lambda: "next"), 10.0) == "next"
            async with asyncio.timeout(10.0):
                while workers.inside:
                    await asyncio.sleep(0.01)
            await workers.close()

        asyncio.run(impatient())
