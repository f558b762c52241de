"""The catalogue is lost and something else is damaged too: what is sound is used, the rest is kept and told."""

import pytest

from qtopt.apps import data
from qtopt.replay import EpisodeStore, StoreFormat, rebuild_catalogue
from qtopt.replay.segment_files import EPISODE_COLUMNS
from tests.episodes import make_episode
from tests.replay.landed import spoil_frame

SEGMENT = "segments/00000000.zarr"


@pytest.fixture(params=["raw", "jpeg"])
def codec(request):
    return request.param


@pytest.fixture
def episodes(rng):
    return [make_episode(rng, 2 + number % 3, success=number % 2 == 0) for number in range(8)]


def make_store(path, episodes, codec="raw"):
    """Makes a store of which the first six episodes are sealed, in two segments, and the others are landed."""
    with EpisodeStore(path, StoreFormat.for_images(16, codec=codec)) as store:
        for number, episode in enumerate(episodes):
            store.append(episode)
            if number in (2, 5):
                store.seal()
    return path


def lose_catalogue(path):
    for file in path.glob("catalogue.db*"):
        file.unlink()


def flip(file, place):
    content = bytearray(file.read_bytes())
    content[place] ^= 1
    file.write_bytes(content)


def served(path):
    with EpisodeStore(path, read_only=True) as store:
        return [episode.uuid for episode in store.episodes()]


def uuids(episodes):
    return [episode.uuid for episode in episodes]


def verify(path, capsys, *, repair=False):
    code = data.main(data.Config("verify", (path,), repair=repair))
    return code, capsys.readouterr().out


@pytest.mark.parametrize("find", [b"{", b'"rows": ', b'"number": ', b'"frame_bytes": ', b'"first_position": '])
def test_a_damaged_description_costs_nothing(tmp_path, episodes, capsys, find):
    path = make_store(tmp_path / "store", episodes)
    description = path / SEGMENT.replace("0.zarr", "1.zarr") / "zarr.json"
    flip(description, description.read_bytes().index(find) + len(find) - (find == b"{"))
    lose_catalogue(path)
    code, out = verify(path, capsys, repair=True)
    assert "catalogue rebuilt: 6 sealed and 2 landed episodes" in out
    assert (code, "note: " in out, "everything matches" in out) == (1, True, False)
    assert served(path) == uuids(episodes)


@pytest.mark.parametrize("name", [*EPISODE_COLUMNS, "episode_facts_json"])
def test_a_damaged_column_costs_what_it_alone_knows(tmp_path, episodes, codec, capsys, name):
    path = make_store(tmp_path / "store", episodes, codec)
    flip(next(file for file in (path / SEGMENT / name / "c").rglob("*") if file.is_file()), 0)
    lose_catalogue(path)
    code, out = verify(path, capsys, repair=True)
    assert (code, "everything matches" in out) == (1, False)
    mended = name.removeprefix("episode_") in ("first_row", "length", "offline", "rows_crc32c", "digest", "facts_end")
    lost = 0 if mended else 1 if codec == "raw" else 3
    assert served(path) == uuids(episodes[lost:])
    assert f"{lost} sealed episodes are quarantined" in out
    with EpisodeStore(path, read_only=True) as store:
        assert len(store) == len(episodes)
        assert len(store.verify().quarantined) == lost


def test_what_was_not_told_is_taken_from_a_copy(tmp_path, episodes, codec):
    good, path = (make_store(tmp_path / name, episodes, codec) for name in ("good", "store"))
    flip(path / SEGMENT / "episode_outcome" / "c" / "0", 0)
    lose_catalogue(path)
    assert rebuild_catalogue(path).quarantined == (1 if codec == "raw" else 3)
    assert data.main(data.Config("merge", (good,), into=path)) == 0
    assert sorted(served(path)) == sorted(uuids(episodes))


def test_damage_to_the_landing_log_is_kept_aside(tmp_path, episodes, capsys):
    path = make_store(tmp_path / "store", episodes)
    with EpisodeStore(path) as store:
        first = store._shelf.episode(episodes[6].uuid).first_position
        spoil_frame(store, first + 1)
    log = max((path / "landing").iterdir())
    flip(log, log.read_bytes().index(episodes[7].uuid.encode()))
    whole = log.read_bytes()
    lose_catalogue(path)
    code, out = verify(path, capsys, repair=True)
    assert code == 1
    assert "2 segments and pieces of the landing log" in out
    assert served(path) == uuids(episodes[:6])
    kept = [file.read_bytes() for file in (path / "quarantine").glob("landing-*.bytes")]
    assert sorted(map(len, kept)) == sorted(len(piece) for piece in kept if piece in whole)
    assert sum(map(len, kept)) == len(whole)
    assert verify(path, capsys)[0] == 0


def test_episodes_stored_again_survive_a_lost_catalogue(tmp_path, episodes):
    path = make_store(tmp_path / "store", episodes)
    shard = path / SEGMENT / "frames" / "c" / "0"
    flip(shard, 100)
    with EpisodeStore(path) as store:
        assert len(store.verify(repair=True).damaged) == 1
        assert store.append(episodes[0])
    for seal in (False, True):
        if seal:
            with EpisodeStore(path) as store:
                store.seal()
        lose_catalogue(path)
        rebuild_catalogue(path)
        assert sorted(served(path)) == sorted(uuids(episodes))
