"""What takes episodes in tests of the spool, or does not."""


class Sink:
    """Takes everything, or nothing while ``error`` is set."""

    def __init__(self):
        self.episodes, self.error = [], None

    def append(self, episode):
        if self.error is not None:
            raise self.error
        self.episodes.append(episode)
        return True


class PickySink(Sink):
    """Answers some episodes with an error of their own, and notes what it was asked for."""

    def __init__(self):
        super().__init__()
        self.refused, self.asked = {}, []

    def append(self, episode):
        self.asked.append(episode.uuid)
        if episode.uuid in self.refused:
            raise self.refused[episode.uuid]
        return super().append(episode)


def uuids(episodes):
    """Returns the episodes' UUIDs, in order."""
    return [episode.uuid for episode in episodes]
