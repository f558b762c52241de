"""The catalogue's connections: as many as there are threads that read, and no more."""

import threading

import psutil

from qtopt.replay import EpisodeStore, StoreFormat
from tests.episodes import make_episode

FORMAT = StoreFormat.for_images(16)


def test_a_reader_is_closed_with_its_thread(tmp_path, rng):
    with EpisodeStore(tmp_path / "store", FORMAT) as store:
        episode = make_episode(rng)
        store.append(episode)
        read = []

        for number in range(20):
            thread = threading.Thread(target=lambda: read.append(store.read_episode(episode.uuid).uuid))
            thread.start()
            thread.join()
            if number == 0:  # SQLite keeps a file of it for the next
                after_one = psutil.Process().num_fds()
        assert read == 20 * [episode.uuid]
        assert psutil.Process().num_fds() == after_one


def test_closing_the_store_closes_the_readers_of_threads_that_live(tmp_path, rng):
    before = psutil.Process().num_fds()
    episode, ready, ended = make_episode(rng), threading.Barrier(4), threading.Event()
    with EpisodeStore(tmp_path / "store", FORMAT) as store:
        store.append(episode)

        def work():
            store.read_episode(episode.uuid)
            ready.wait(30)
            ended.wait(30)

        threads = [threading.Thread(target=work) for _ in range(3)]
        for thread in threads:
            thread.start()
        ready.wait(30)
    assert psutil.Process().num_fds() <= before
    ended.set()
    for thread in threads:
        thread.join()
