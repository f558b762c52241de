"""TensorBoard events without torch."""

import time
from collections.abc import Mapping
from pathlib import Path

from tensorboard.compat.proto.event_pb2 import Event
from tensorboard.compat.proto.summary_pb2 import Summary
from tensorboard.summary.writer.event_file_writer import EventFileWriter


class EventWriter:
    """Writes scalars as TensorBoard events.

    Usage::

        writer.scalars({"trainer/loss": 0.31}, step=1200)
    """

    def __init__(self, directory: Path) -> None:
        self._writer = EventFileWriter(str(directory), flush_secs=10)

    def scalars(self, values: Mapping[str, float], step: int) -> None:
        """Writes all values under ``step``."""
        items = [Summary.Value(tag=tag, simple_value=value) for tag, value in values.items()]
        self._writer.add_event(Event(wall_time=time.time(), step=step, summary=Summary(value=items)))

    def close(self) -> None:
        """Writes what is still held and closes the file."""
        self._writer.close()
