"""Damages landed episodes on purpose, as a failing disk would: in the files of the landing log."""

import os

from qtopt.replay.landing_log import LandingLog, open_files


def spoil_frame(store, position):
    """Overwrites the landed frame at a position."""
    file, offset, size = store._shelf._landed._log._places[position]
    _overwrite(file.path, offset, bytes(255 for _ in range(size)))


def spoil_steps(path, uuid):
    """Flips a bit in the step rows of a landed episode, in a closed store."""
    for file in (path / "landing").iterdir():
        data = file.read_bytes()
        place = data.find(uuid.encode())
        if place >= 0:
            after = data.index(b"]", place) + 5
            _overwrite(file, after, bytes([data[after] ^ 1]))


def spoil_frames(file):
    """Makes the frames of all records in a file of the log zeros, as after a power cut that kept sizes, not data."""
    (log,) = [each for each in open_files(file.parent) if each.path == file]
    for episode in LandingLog(file.parent, [log], 0).take_rest(0):
        _overwrite(file, episode.offset, bytes(sum(episode.sizes())))


def _overwrite(path, offset, data):
    handle = os.open(path, os.O_WRONLY)
    os.pwrite(handle, data, offset)
    os.close(handle)
