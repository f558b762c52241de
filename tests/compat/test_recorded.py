"""Earlier releases' bytes, kept in ``recorded/``: today's server takes and answers them, today's store reads theirs.

And what a release does with messages of one to come: it ignores fields that it does not know, takes what leaves new
ones out, and says who has to be upgraded first where an episode's digest covers what it cannot see.
"""

import shutil
import zipfile

import grpc
import pytest

from qtopt.errors import SchemaMismatch
from qtopt.replay import EpisodeStore
from qtopt.rpc import BackgroundServer, ServerConfig, codec, handshake
from qtopt.rpc.gen import replay_pb2
from qtopt.rpc.status import translate_errors
from robot_bridge import spooled
from tests.compat import calls
from tests.compat.record import RECORDED
from tests.replay.test_store import assert_same_episode

RELEASES = sorted(RECORDED.glob("*.zip"))
UNKNOWN_FIELD = b"\xba\x3e\x03new"  # field 999, three bytes


@pytest.fixture(scope="module", params=RELEASES, ids=lambda path: path.stem)
def release(request, tmp_path_factory):
    """What a release recorded, unpacked."""
    directory = tmp_path_factory.mktemp("recorded")
    with zipfile.ZipFile(request.param) as archive:
        archive.extractall(directory)
    return directory


def recorded(release):
    """Yields name, request and answer of each call."""
    for path in sorted((release / "calls").glob("*.request")):
        yield path.stem.partition("-")[2], path.read_bytes(), path.with_suffix(".answer").read_bytes()


@pytest.fixture
def channel(tmp_path):
    store, services = calls.services(tmp_path / "served")
    with (
        store,
        BackgroundServer(ServerConfig(port=0), services) as server,
        grpc.insecure_channel(server.address) as channel,
    ):
        yield channel


def call(channel, name, data):
    with translate_errors(name):
        return channel.unary_unary(calls.path_of(name))(data, timeout=20.0)


def require_covered(old, new, where):
    """Fails unless whatever an old client finds in the old answer is in the new one too, of the same size."""
    for field, value in old.ListFields():
        here, found = f"{where}.{field.name}", getattr(new, field.name)
        if field.message_type is not None and field.message_type.GetOptions().map_entry:
            assert set(value) <= set(found), here
        elif field.message_type is not None:
            require_covered(value, found, here)
        elif field.is_repeated or field.type in (field.TYPE_BYTES, field.TYPE_ENUM):
            assert len(found) == len(value) if field.type != field.TYPE_ENUM else found, here
        elif field.type == field.TYPE_STRING:
            assert found, here


def test_today_s_server_answers_what_was_recorded(release, channel):
    seen = set()
    for name, request, answer in recorded(release):
        new = calls.ANSWERS[name].FromString(call(channel, name, request))
        old = calls.ANSWERS[name].FromString(answer)
        require_covered(old, new, name)
        seen.add(name)
        if name == "Handshake":
            handshake.check_schemas(replay_pb2.HandshakeRequest.FromString(request).schema, new.schema)
        if name == "AppendEpisode":
            assert new.is_new
            assert not calls.ANSWERS[name].FromString(call(channel, name, request)).is_new
    assert len(seen) == len(calls.ANSWERS)


def test_today_s_client_sends_what_was_recorded(release):
    """So the servers of that release take it; where a change is wanted, docs/compatibility.md says what is allowed."""
    old = [(name, request) for name, request, _ in recorded(release)]
    new = [(name, message.SerializeToString(deterministic=True)) for name, message in calls.requests()]
    jpeg = 3  # the library that writes JPEG may be another one
    assert [pair for number, pair in enumerate(new) if number != jpeg] == [
        pair for number, pair in enumerate(old) if number != jpeg
    ]


def test_a_recorded_store_opens_is_sound_is_sampled_and_goes_on(release, tmp_path):
    shutil.copytree(release / "store", tmp_path / "store")
    with EpisodeStore(tmp_path / "store") as store:
        report = store.verify()
        assert report.sound, (report.damaged, report.notes)
        for found, expected in zip(store.episodes(), calls.episodes(), strict=True):
            assert_same_episode(found, expected)
        assert not store.append(calls.episodes()[0])
        drawn = store.sample_transitions(1000, 5.0)  # each of nine comes up: missing one has a chance of 1e-50
        assert set(drawn.position.tolist()) == {0, 1, 3, 4, 5, 7, 8, 9, 10}
        store.seal()
    with EpisodeStore(tmp_path / "store") as store:
        assert store.verify().sound


def test_a_recorded_spool_file_is_read(release):
    assert_same_episode(spooled.decode_episode(release / "episode.safetensors"), calls.episodes()[1])


def test_fields_of_a_release_to_come_are_ignored(release, channel):
    for name, request, _ in recorded(release):
        calls.ANSWERS[name].FromString(call(channel, name, request + UNKNOWN_FIELD))


def test_an_episode_whose_digest_covers_an_unknown_field_names_who_comes_first(channel):
    request = replay_pb2.AppendEpisodeRequest()
    codec.encode_episode(calls.episodes()[0], request.episode)
    request.episode.digest = bytes(32)  # as if over one field more
    request.episode.MergeFromString(UNKNOWN_FIELD)
    with pytest.raises(SchemaMismatch, match="upgrade the server first, then its collectors"):
        call(channel, "AppendEpisode", request.SerializeToString())


def test_optional_fields_may_be_absent(channel):
    """What came after the first messages: is_intervention in episodes, texts in reports, waiting in GetLatest."""
    request = replay_pb2.AppendEpisodeRequest()
    codec.encode_episode(calls.episodes()[1], request.episode)
    request.episode.ClearField("is_intervention")
    request.episode.digest = codec.episode_digest(request.episode)
    for name, message in (("AppendEpisode", request), *calls.requests()[-6:-3]):
        stripped = type(message).FromString(message.SerializeToString())
        for optional in ("texts", "wait_s"):
            if optional in stripped.DESCRIPTOR.fields_by_name:
                stripped.ClearField(optional)
        call(channel, name, stripped.SerializeToString())


class TestNegotiation:
    def schema(self, version):
        return replay_pb2.Schema(
            schema_version=version, image_height=8, image_width=8, action_fields=handshake.ACTION_FIELDS
        )

    def test_a_newer_server_answers_an_older_client_in_its_version(self):
        answer = handshake.negotiate(self.schema(4), self.schema(5), oldest=4)
        assert answer.schema_version == 4
        handshake.check_schemas(self.schema(4), answer)  # what the old client does with it

    def test_too_old_a_client_is_told_to_be_upgraded(self):
        with pytest.raises(SchemaMismatch, match=r"client 3, server 5, which takes 4 to 5: upgrade the client"):
            handshake.negotiate(self.schema(3), self.schema(5), oldest=4)

    def test_a_newer_client_is_told_that_the_server_comes_first(self):
        with pytest.raises(SchemaMismatch, match=r"client 6, server 5.*upgrade the server first"):
            handshake.negotiate(self.schema(6), self.schema(5), oldest=4)

    def test_recorded_handshakes_pass_a_server_of_the_next_schema(self, release, monkeypatch, tmp_path):
        monkeypatch.setattr(handshake, "SCHEMA_VERSION", handshake.SCHEMA_VERSION + 1)
        store, services = calls.services(tmp_path / "served")
        name, request, _ = next(recorded(release))
        with (
            store,
            BackgroundServer(ServerConfig(port=0), services) as server,
            grpc.insecure_channel(server.address) as channel,
        ):
            answer = calls.ANSWERS[name].FromString(call(channel, name, request))
        handshake.check_schemas(replay_pb2.HandshakeRequest.FromString(request).schema, answer.schema)


def test_the_recordings_cover_every_call():
    assert RELEASES
    services = replay_pb2.DESCRIPTOR.services_by_name
    assert {method.name for method in services["ReplayService"].methods} <= set(calls.ANSWERS)
    assert sum(path.stat().st_size for path in RELEASES) < 1_000_000
