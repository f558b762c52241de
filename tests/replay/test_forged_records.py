"""Bytes that a client chose: whatever stands in frames, a damaged log is opened, soon, without an episode of theirs."""

import dataclasses
import time

import numpy as np
import pytest

from qtopt.errors import SchemaMismatch
from qtopt.replay import EpisodeStore, StoreFormat, read_format, rebuild_catalogue
from qtopt.replay.landing_file import OLD_MARK
from qtopt.replay.record import encode_episode
from qtopt.replay.schema import rows_to_bytes
from tests.episodes import make_episode
from tests.replay.forged import as_before_marks, fake, forged, rot_head, row_values
from tests.replay.test_landing_log import without_catalogue

FORMAT = StoreFormat.for_images(16)


def with_log_of(path, episodes, before_marks, hurt=0, fmt=FORMAT):
    """Makes a store of landed episodes, with or without marks, and damages one's head; it has no catalogue."""
    with EpisodeStore(path, fmt) as store:
        for episode in episodes:
            store.append(episode)
    (file,) = (path / "landing").iterdir()
    mark = bytes.fromhex(file.stem.partition("-")[2])
    if before_marks:
        as_before_marks(path)
        (file,) = (path / "landing").iterdir()
        mark = OLD_MARK
    rot_head(file, file.read_bytes().rindex(mark, 0, file.read_bytes().index(episodes[hurt].uuid.encode())))
    without_catalogue(path)


@pytest.fixture
def record(rng):
    """A legal episode as the store encodes it."""
    encoded = encode_episode(make_episode(rng, 2, size_px=16), FORMAT)
    return dataclasses.replace(encoded, row=dataclasses.replace(encoded.row, first_position=0))


WORDS = {
    "an object": b"{}",
    "nothing": b"",
    "no JSON": b"[1, 2",
    "no text": b"\xff\xfe",
    "nested without end": b"[" * 700,
    "too few values": b"[1, 2, 3]",
    "a number of too many digits": b"9" * 700,
}
VALUES = {
    "a position that is text": {"first_position": "0"},
    "a position below zero": {"first_position": -1},
    "a position beyond SQLite": {"first_position": 2**70},
    "a UUID that leads elsewhere": {"uuid": "../../elsewhere"},
    "a digest of one byte": {"digest": "00"},
    "no digest": {"digest": None},
    "no steps": {"length": 0},
    "as many steps as no memory holds": {"length": 2**40},
    "more steps than there are": {"length": 3},
    "a fraction of steps": {"length": 2.0},
    "an unknown end": {"end": 77},
    "an unknown outcome": {"outcome": 200},
    "a version beyond SQLite": {"policy_version": 2**64},
    "facts that are no text": {"facts": {}},
    "facts that are no JSON": {"facts": "{"},
    "facts without a name": {"facts": '{"metadata":{}}'},
    "metadata that are a list": {"facts": '{"collector":"arm-1","metadata":[]}'},
    "a checksum beyond 32 bits": {"rows_crc32c": 2**32},
}


@pytest.mark.parametrize("before_marks", [True, False], ids=["format 3", "format 4"])
class TestForged:
    @pytest.mark.parametrize("what", [*WORDS, *VALUES, "frames of another size"])
    def test_what_parses_to_nothing_is_no_record(self, tmp_path, rng, record, what, before_marks):
        """The first frames of an episode hold it, and the episode's own head rots."""
        steps = rows_to_bytes(record.rows)
        if what in WORDS:
            content = fake(WORDS[what])
        elif what in VALUES:
            content = fake(row_values(record, **VALUES[what]), steps, sum(map(len, record.frames)))
        else:
            content = fake(row_values(record), steps, 5)
        bad = forged(make_episode(rng, 4, size_px=16), content)
        good = [make_episode(rng, 2, size_px=16) for _ in range(2)]
        path = tmp_path / "store"
        with_log_of(path, [good[0], bad, good[1]], before_marks, hurt=1)
        uuids = [episode.uuid for episode in good]
        with EpisodeStore(path) as store:
            assert [episode.uuid for episode in store.episodes()] == uuids
            assert len(store.verify().left_out) == 1
            assert store.collectors(10) == ["test"]
        without_catalogue(path)
        assert rebuild_catalogue(path).landed == 2
        with EpisodeStore(path) as store:
            assert [episode.uuid for episode in store.episodes()] == uuids

    def test_many_heads_that_claim_much_cost_little(self, tmp_path, rng, before_marks):
        """An episode of megabytes full of heads, each of which says that megabytes follow it; others behind it."""
        head = OLD_MARK + np.array([2_000_000, 0, 0, 7], "<u4").tobytes()
        bad = forged(make_episode(rng, 20, size_px=256), head * (21 * 256 * 256 * 3 // len(head)))
        good = [make_episode(rng, 2, size_px=256) for _ in range(4)]
        with_log_of(tmp_path / "store", [bad, *good], before_marks, fmt=StoreFormat.for_images(256, codec="raw"))
        started = time.process_time()
        with EpisodeStore(tmp_path / "store") as store:
            assert time.process_time() - started < 10.0
            assert [episode.uuid for episode in store.episodes()] == [episode.uuid for episode in good]
            assert len(store.verify().left_out) == 1


def test_a_client_s_record_is_never_taken_for_one_of_ours(tmp_path, rng, record):
    """It is well formed, its checksum is right, and the episode around it is damaged."""
    content = fake(row_values(record), rows_to_bytes(record.rows), sum(map(len, record.frames))) + b"".join(
        record.frames
    )
    bad, good = forged(make_episode(rng, 8, size_px=16), content), make_episode(rng, 2, size_px=16)
    with_log_of(tmp_path / "store", [bad, good], before_marks=False)
    with EpisodeStore(tmp_path / "store") as store:
        assert [episode.uuid for episode in store.episodes()] == [good.uuid]


def test_a_log_from_before_marks_is_read_and_goes_on_with_files_that_have_one(tmp_path, rng):
    path, episodes = tmp_path / "store", [make_episode(rng, 2, size_px=16) for _ in range(6)]
    with EpisodeStore(path, FORMAT) as store:
        for episode in episodes[:4]:
            store.append(episode)
    as_before_marks(path)
    assert read_format(path).format_version == 3
    with EpisodeStore(path, read_only=True) as store:
        assert store.verify().sound
    with EpisodeStore(path) as store:
        for episode in episodes[4:]:
            store.append(episode)
    assert read_format(path).format_version == 4
    older, newer = sorted((path / "landing").iterdir())
    assert (older.name, len(newer.stem)) == ("00000001.log", 8 + 1 + 32)
    for lose in (False, True):
        if lose:
            without_catalogue(path)
            rebuild_catalogue(path)
        with EpisodeStore(path) as store:
            assert [episode.uuid for episode in store.episodes()] == [episode.uuid for episode in episodes]
            assert store.verify().sound


def test_each_file_has_a_mark_of_its_own_that_no_name_of_the_store_tells(tmp_path, rng):
    marks = set()
    for _ in range(3):
        with EpisodeStore(tmp_path / "store", FORMAT) as store:
            store.append(make_episode(rng, 2, size_px=16))
            marks |= {file.stem.partition("-")[2] for file in (tmp_path / "store" / "landing").iterdir()}
    assert len(marks) == 3


def test_facts_that_became_too_long_are_refused(tmp_path, rng):
    episode = make_episode(rng, 2, size_px=16)
    with EpisodeStore(tmp_path / "store", FORMAT) as store:
        with pytest.raises(SchemaMismatch, match=r"a name of 300 characters, expected at most 256: give a shorter one"):
            store.append(dataclasses.replace(episode, collector="x" * 300))
        with pytest.raises(SchemaMismatch, match="expected at most 1048576"):  # six characters each as ASCII
            store.append(dataclasses.replace(episode, metadata={"log": "\u00e4" * 200_000}))
        assert store.append(dataclasses.replace(episode, collector="\U0001f600" * 256))
        assert len(store) == 1
