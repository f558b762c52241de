"""The parts of the ring of labels agree with each other, however many labels come at once."""

import numpy as np
import pytest

from qtopt.replay.label_ring import LabelRing, LabelRingConfig
from qtopt.types import Targets


@pytest.mark.parametrize("at_once", [1, 7, 16, 50])
def test_places_kinds_and_members_agree(rng, at_once):
    ring = LabelRing(LabelRingConfig(capacity=16))
    for version in range(40):
        position = rng.integers(0, 60, at_once)
        targets = Targets(position, rng.random(at_once).astype(np.float32), version)
        ring.put(targets, rng.random(at_once) < 0.5, position % 3 == 0, 0.0)
        entries, members = ring._entries.view, [each.view.tolist() for each in ring._members]
        assert sorted(slot for each in members for slot in each) == list(range(len(ring)))
        for kind, slots in enumerate(members):
            assert (entries["kind"][slots] == kind).all()
            assert ring._place.view[slots].tolist() == list(range(len(slots)))
        assert ring._slots == {at: slot for slot, at in enumerate(entries["position"].tolist())}
    assert len(ring) == 16
