"""Episodes in whose frames stands what looks like a record of the landing log, as a client may make them."""

import dataclasses
import json
import os

import numpy as np

from qtopt.replay.landing_file import OLD_MARK, LogFile, head_of, scan


def forged(episode, content):
    """Returns an episode whose frames hold ``content``, from its first frame on."""
    images = np.zeros_like(episode.images)
    images.reshape(-1)[: len(content)] = np.frombuffer(content, np.uint8)
    return dataclasses.replace(episode, images=images)


def row_values(record, **changed):
    """Returns the values that the log has of a record's row, some of them changed."""
    names = [each.name for each in dataclasses.fields(record.row)][:10]
    return [changed.get(name, value) for name, value in zip(names, record.row.lasting(), strict=True)]


def fake(values, steps=b"", frame_bytes=0, mark=OLD_MARK):
    """Returns the head of a record with a checksum that is right; ``values`` are its JSON, or what stands for it."""
    about = values if isinstance(values, bytes) else json.dumps(values, default=bytes.hex).encode()
    return head_of(mark, about, steps, frame_bytes)


def as_before_marks(path):
    """Makes the files of the log of a closed store what they were in format 3, and its description too."""
    for file in list((path / "landing").iterdir()):
        log = LogFile(file, os.O_RDONLY)
        data = file.read_bytes()
        parts, end = [], 0
        for episode in scan(log):
            stop = episode.offset + sum(episode.sizes())
            head = len(log.mark) + 16
            body = data[episode.start + head : episode.offset]
            about = body[: len(body) - len(episode.steps)]
            parts += [head_of(OLD_MARK, about, episode.steps, stop - episode.offset), data[episode.offset : stop]]
            end = stop
        assert end == len(data)
        file.with_name(f"{file.stem[:8]}.log").write_bytes(b"".join(parts))
        file.unlink()
    description = path / "store.json"
    description.write_text(description.read_text().replace('"format_version": 4', '"format_version": 3'))


def rot_head(file, start):
    """Flips a bit in the head of the record at a place of a file."""
    data = bytearray(file.read_bytes())
    data[start + 1] ^= 1
    file.write_bytes(data)
