"""A quarantined episode is taken again from whoever has it, and `data verify` tells what is new from what is known."""

import shutil
import uuid

import pytest

from qtopt.apps import data
from qtopt.errors import EpisodeConflict, StoreError
from qtopt.replay import EpisodeStore, StoreFormat, back_up, read_format, restore
from tests.episodes import make_episode
from tests.replay.landed import spoil_frame
from tests.replay.test_salvage import SEGMENT, flip, lose_catalogue, make_store, served, uuids, verify


@pytest.fixture
def episodes(rng):
    return [make_episode(rng, 2 + number % 3) for number in range(8)]


@pytest.fixture
def path(tmp_path, episodes):
    """A store, its sound twin beside it, with a damaged sealed episode, the first, and a landed one, the last."""
    make_store(tmp_path / "good", episodes)
    path = make_store(tmp_path / "store", episodes)
    flip(path / "segments/00000000.zarr/frames/c/0", 100)
    with EpisodeStore(path) as store:
        spoil_frame(store, store._shelf.episode(episodes[-1].uuid).first_position)
    return path


def test_known_damage_is_told_from_new(path, episodes, capsys):
    code, out = verify(path, capsys)
    assert (code, "2 damaged episodes: keep them aside with --repair" in out) == (1, True)
    code, out = verify(path, capsys, repair=True)
    assert (code, "2 damaged episodes: they are kept aside" in out) == (1, True)
    for repair in (False, True):
        code, out = verify(path, capsys, repair=repair)
        assert (code, "2 quarantined episodes" in out, "damaged episodes:" in out) == (0, True, False)
    flip(path / "segments/00000001.zarr/frames/c/0", 100)
    assert verify(path, capsys)[0] == 1


def test_damage_that_costs_no_episode_is_not_called_one(tmp_path, episodes, capsys):
    path = make_store(tmp_path / "store", episodes)
    flip(path / "segments/00000000.zarr/frame_offset/c/0", 0)
    code, out = verify(path, capsys, repair=True)
    assert (code, "1 damaged places that cost no further episode" in out, "--repair; all" in out) == (1, True, False)
    assert "0 damaged" not in out


def test_a_merge_heals(path, episodes, capsys, tmp_path):
    verify(path, capsys, repair=True)
    assert data.main(data.Config("merge", (tmp_path / "good",), into=path)) == 0
    assert "2 episodes copied" in capsys.readouterr().out
    for _ in range(2):
        assert sorted(served(path)) == sorted(uuids(episodes))
        code, out = verify(path, capsys, repair=True)
        assert (code, "2 damaged episodes were stored again since" in out) == (0, True)
        with EpisodeStore(path) as store:
            assert not any(map(store.append, episodes))
            assert {tuple(e.rewards.tolist()) for e in store.episodes()} == {
                tuple(e.rewards.tolist()) for e in episodes
            }
            store.seal()


def test_a_table_that_cost_an_episode_is_told_after_it_is_healed_as_costing_no_further_one(tmp_path, episodes, capsys):
    good, path = (make_store(tmp_path / name, episodes) for name in ("good", "store"))
    flip(path / SEGMENT / "episode_outcome" / "c" / "0", 0)
    lose_catalogue(path)
    verify(path, capsys, repair=True)
    assert data.main(data.Config("merge", (good,), into=path)) == 0
    capsys.readouterr()
    code, out = verify(path, capsys)
    assert "1 damaged episodes were stored again since" in out
    assert (code, "1 damaged places that cost no further episode of this store" in out) == (1, True)


def test_what_is_in_a_store_tells_episodes_from_those_that_are_served(path, episodes, capsys, tmp_path):
    verify(path, capsys, repair=True)
    assert data.main(data.Config("merge", (tmp_path / "good",), into=path)) == 0
    capsys.readouterr()
    assert data.main(data.Config("info", (path,))) == 0
    told = dict(line.rsplit(maxsplit=1) for line in capsys.readouterr().out.splitlines())
    assert (told["episodes"], told["quarantined"], told["episodes served"]) == ("10", "2", "8")


def test_sent_again_it_is_stored_and_another_one_is_refused(path, episodes, rng):
    with EpisodeStore(path) as store:
        store.verify(repair=True)
        with pytest.raises(EpisodeConflict):
            store.append(make_episode(rng, 3, uuid=episodes[0].uuid))
        assert store.append(episodes[0])
        assert not store.append(episodes[0])
        assert store.read_episode(episodes[0].uuid).rewards.tolist() == episodes[0].rewards.tolist()


def test_a_merge_of_which_one_store_cannot_be_read_copies_nothing(tmp_path, episodes):
    good, bad = (make_store(tmp_path / name, episodes) for name in ("good", "bad"))
    lose_catalogue(bad)
    with pytest.raises(StoreError, match="catalogue"):
        data.main(data.Config("merge", (good, bad), into=tmp_path / "into"))
    assert not (tmp_path / "into").exists()


class TestIdentity:
    def test_a_new_store_is_not_copied_over_the_copy_of_a_lost_one(self, tmp_path, episodes, capsys):
        path, copy = make_store(tmp_path / "store", episodes), tmp_path / "copy"
        data.main(data.Config("backup", (path,), into=copy))
        assert "2 episodes that are in no segment yet" in capsys.readouterr().out
        shutil.rmtree(path)
        EpisodeStore(path, StoreFormat.for_images(16)).close()
        with pytest.raises(StoreError, match=r"store_id.*data restore"):
            back_up(path, copy)
        assert served(copy) == uuids(episodes)
        shutil.rmtree(path)
        restore(copy, path)
        assert read_format(path).store_id == read_format(copy).store_id != ""
        assert back_up(path, copy).removed == 0

    def test_a_store_without_one_is_known_by_its_episodes(self, tmp_path, episodes):
        path, other = make_store(tmp_path / "store", episodes), make_store(tmp_path / "other", episodes[:0])
        for store in (path, other):
            description = store / "store.json"
            description.write_text(description.read_text().replace(read_format(store).store_id, ""))
        back_up(path, tmp_path / "copy")
        with pytest.raises(StoreError, match="store_id: found none"):
            back_up(other, tmp_path / "copy")
        EpisodeStore(path).close()
        back_up(path, tmp_path / "copy")
        found = read_format(tmp_path / "copy").store_id
        assert found == read_format(path).store_id == uuid.UUID(found).hex
        assert served(tmp_path / "copy") == uuids(episodes)
