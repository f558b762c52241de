"""Which transitions and labels are drawn: properties of the index, the sampler, the ring and the limiter."""

import threading
import time

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from qtopt.errors import CheckpointError, ConfigError
from qtopt.replay.balance import balanced
from qtopt.replay.index import EpisodeIndex, IndexEntries
from qtopt.replay.label_ring import LabelRing, LabelRingConfig
from qtopt.replay.rate_limiter import RateLimiterConfig, SamplesPerInsert
from qtopt.replay.record import EpisodeRow
from qtopt.replay.sampler import SamplerConfig, draw
from qtopt.types import EpisodeEnd, Outcome, Targets

DEAD = 3
outcomes = st.sampled_from([Outcome.SUCCESS, Outcome.DROPPED, Outcome.ABORTED])
kinds = st.tuples(st.integers(1, 20), outcomes, st.booleans(), st.booleans())
shares = st.none() | st.floats(0, 1)


def make_index(episodes, batch=3):
    """Returns an index of (length, outcome, offline, dead) and (position, success, offline) of each transition."""
    index, rows, transitions, start = EpisodeIndex(), [], [], 0
    for length, outcome, offline, dead in episodes:
        row = EpisodeRow(
            first_position=start, uuid="", digest=b"", length=length, end=EpisodeEnd.TERMINATED, outcome=outcome,
            policy_version=0, offline=offline, facts="", rows_crc32c=0, quarantined="test" if dead else None,
        )  # fmt: skip
        rows.append(row)
        if outcome is not Outcome.ABORTED and not dead:
            transitions += [(start + step, outcome is Outcome.SUCCESS, offline) for step in range(length)]
        start += length + 1
    for first in range(0, len(rows), batch):
        index.extend(IndexEntries.of(rows[first : first + batch]))
    return index, transitions


@given(st.lists(kinds, max_size=30), shares, shares, st.none() | st.floats(0.5, 1e6), st.integers(0, 2**32 - 1))
def test_only_live_trainable_transitions_are_drawn(episodes, success_share, offline_share, half_life, seed):
    index, transitions = make_index(episodes)
    config = SamplerConfig(success_share=success_share, offline_share=offline_share, half_life=half_life)
    drawn = draw(index, 50, config, np.random.default_rng(seed))
    known = {position for position, _, _ in transitions}
    assert set(drawn.tolist()) <= known
    assert len(drawn) == (50 if known else 0)
    everything = np.arange(-2, sum(length + 1 for length, *_ in episodes) + 2)
    assert set(everything[index.usable(everything)].tolist()) == known


@given(st.lists(kinds, min_size=1, max_size=30), st.data())
def test_killed_episodes_are_never_drawn_again(episodes, data):
    index, transitions = make_index(episodes)
    rows = sum(length + 1 for length, *_ in episodes)
    hit = np.array(data.draw(st.lists(st.integers(0, rows - 1), max_size=5)), np.int64)
    gone = {(int(e)) for e in index.episode_of(hit)}
    killed = index.kill(hit)
    assert len(killed) == len({number for number in gone if not episodes[number][DEAD]})
    assert index.kill(hit) == []
    drawn = draw(index, 100, SamplerConfig(), np.random.default_rng(0))
    assert not set(index.episode_of(drawn).tolist()) & gone
    assert index.group_transitions().sum() == sum(
        length for number, (length, outcome, _, dead) in enumerate(episodes)
        if number not in gone and not dead and outcome is not Outcome.ABORTED
    )  # fmt: skip
    assert index.figures()["transitions"] <= len(transitions)


@given(st.lists(st.tuples(kinds, st.integers(0, 4), st.booleans()), min_size=1, max_size=20), st.data())
def test_the_index_tells_what_a_plain_list_does_whatever_gaps_there_are_and_whatever_is_dropped(episodes, data):
    index, expected, start = EpisodeIndex(), {}, 0
    for (length, outcome, offline, dead), gap, truncated in episodes:
        start += gap
        end = EpisodeEnd.TRUNCATED if truncated else EpisodeEnd.TERMINATED
        facts = ([start], [length], [end], [outcome], [offline], [dead])
        index.extend(IndexEntries(*map(np.array, facts)))
        if outcome is not Outcome.ABORTED and not dead:
            success = outcome is Outcome.SUCCESS
            expected |= {start + step: (success, length - 1 - step, truncated) for step in range(length)}
        start += length + 1
        if data.draw(st.integers(0, 3)) == 0:
            before = data.draw(st.sampled_from([*index.starts().tolist(), start]))
            index.drop_before(before)
            expected = {position: told for position, told in expected.items() if position >= before}
        everything = np.arange(-2, start + 2)
        usable = everything[index.usable(everything)]
        assert usable.tolist() == sorted(expected)
        told = [column.tolist() for column in index.describe(usable)]
        assert list(zip(*told, strict=True)) == [expected[position] for position in usable.tolist()]
        found = [index.locate(group, np.arange(total)) for group, total in enumerate(index.group_transitions())]
        assert sorted(np.concatenate(found).tolist()) == sorted(expected)


def test_uniform_draws_are_uniform(rng):
    index, transitions = make_index([(1, Outcome.SUCCESS, False, False), (9, Outcome.DROPPED, True, False)] * 5)
    drawn = draw(index, 50_000, SamplerConfig(), rng)
    counts = np.bincount(drawn, minlength=60)[[position for position, _, _ in transitions]]
    assert len(transitions) == 50
    assert abs(counts - 1000).max() < 160  # five standard deviations


def test_shares_combine(rng):
    index, transitions = make_index(
        [(5, outcome, offline, False) for outcome in (Outcome.SUCCESS, Outcome.DROPPED) for offline in (True, False)]
        + [(20, Outcome.DROPPED, True, False)] * 10
    )
    facts = {position: (success, offline) for position, success, offline in transitions}
    drawn = draw(index, 20_000, SamplerConfig(success_share=0.5, offline_share=0.3), rng)
    success, offline = np.array([facts[position] for position in drawn.tolist()]).mean(0)
    assert success == pytest.approx(0.5, abs=0.02)
    assert offline == pytest.approx(0.3, abs=0.02)


def test_the_offline_share_follows_its_schedule():
    config = SamplerConfig(offline_share=0.9, offline_share_end=0.1, offline_share_over=1000)
    assert [config.offline_share_now(n) for n in (0, 500, 1000, 5000)] == pytest.approx([0.9, 0.5, 0.1, 0.1])
    assert SamplerConfig(offline_share=0.4).offline_share_now(10**9) == 0.4
    assert SamplerConfig().offline_share_now(0) is None


def test_newer_is_likelier_by_the_half_life(rng):
    index, _ = make_index([(20, Outcome.DROPPED, False, False)] * 50)
    drawn = draw(index, 100_000, SamplerConfig(half_life=100.0), rng)
    ordinal = drawn - drawn // 21  # without the rows of the last observations
    newest, before = np.count_nonzero(ordinal >= 900), np.count_nonzero((ordinal >= 800) & (ordinal < 900))
    assert newest / before == pytest.approx(2.0, rel=0.05)
    assert np.count_nonzero(ordinal < 100) > 0


@given(st.lists(st.integers(0, 1000), min_size=4, max_size=4), shares, shares)
def test_balance_gives_what_was_asked_where_it_can_be_had(counts, row_share, column_share):
    found = balanced(np.array(counts), row_share, column_share)
    if not any(counts):
        assert not found.any()
        return
    assert found.sum() == pytest.approx(1.0)
    assert not found[np.array(counts) == 0].any()
    for share, first, second in ((row_share, (0, 2), (1, 3)), (column_share, (0, 1), (2, 3))):
        both = sum(counts[i] for i in first) and sum(counts[i] for i in second)
        alone = row_share is None or column_share is None
        if both and share is not None and (alone or all(counts)) and 0.02 < share < 0.98:
            assert sum(found[i] for i in second) == pytest.approx(share, abs=0.02) or not alone
    if row_share is None and column_share is None:
        assert found == pytest.approx(np.array(counts) / sum(counts))


def test_balance_by_hand():
    # rows: half of 3:1 and half of 1:3; columns as they come
    assert balanced(np.array([30, 10, 10, 30]), row_share=0.5) == pytest.approx([0.375, 0.125, 0.125, 0.375])
    assert balanced(np.array([90, 10, 0, 0]), row_share=0.5, column_share=0.7) == pytest.approx([0.5, 0.5, 0, 0])
    assert balanced(np.array([1, 1, 1, 1]), row_share=0.2, column_share=0.4) == pytest.approx([0.48, 0.12, 0.32, 0.08])


class PlainRing:
    """The ring as a list: what LabelRing must agree with."""

    def __init__(self, capacity):
        self.capacity = capacity
        self.slots = []
        self.next = 0

    def put(self, position, label):
        for slot, (known, _) in enumerate(self.slots):
            if known == position:
                self.slots[slot] = (position, label)
                return
        if len(self.slots) < self.capacity:
            self.slots.append((position, label))
        else:
            self.slots[self.next] = (position, label)
            self.next = (self.next + 1) % self.capacity


puts = st.lists(st.lists(st.integers(0, 12), min_size=1, max_size=6), max_size=12)


@given(st.integers(1, 9), puts, st.integers(0, 2**32 - 1))
def test_the_ring_agrees_with_a_plain_list(capacity, batches, seed):
    ring, plain = LabelRing(LabelRingConfig(capacity=capacity)), PlainRing(capacity)
    for version, positions in enumerate(batches, 1):
        position = np.array(positions, np.int64)
        value = (position / 16 + version / 1000).astype(np.float32)
        ring.put(Targets(position, value, version), position % 2 == 0, position % 3 == 0, float(version))
        for one, label in zip(positions, value.tolist(), strict=True):
            plain.put(one, (label, version))
    expected = {(position, *label) for position, label in plain.slots}
    drawn = ring.sample(400, np.random.default_rng(seed))
    assert len(ring) == len(expected)
    assert ring.positions.tolist() == [position for position, _ in plain.slots]
    found = {(int(e["position"]), float(e["value"]), int(e["model_version"])) for e in drawn}
    assert found == expected
    for entry in drawn:
        assert entry["put_s"] == entry["model_version"]
        assert entry["kind"] == (entry["position"] % 2 == 0) + 2 * (entry["position"] % 3 == 0)


@given(st.integers(1, 9), puts, st.integers(0, 2**32 - 1))
def test_forgetting_and_saving_keep_the_rest_in_order(tmp_path_factory, capacity, batches, seed):
    ring = LabelRing(LabelRingConfig(capacity=capacity))
    for version, positions in enumerate(batches, 1):
        position = np.array(positions, np.int64)
        ring.put(
            Targets(position, position.astype(np.float32) / 16, version), position < 5, position > 9, float(version)
        )
    kept = np.random.default_rng(seed).random(len(ring)) < 0.5
    before = {entry for entry, keep in zip(ring.positions.tolist(), kept.tolist(), strict=True) if keep}
    ring.keep(kept)
    assert set(ring.positions.tolist()) == before
    path = tmp_path_factory.mktemp("ring") / "labels.npz"
    ring.save(path, now_s=100.0)
    again = LabelRing(LabelRingConfig(capacity=capacity))
    again.load(path, now_s=1000.0)
    assert set(again.positions.tolist()) == before
    if before:
        assert again.figures(1000.0)["label_age_p95_s"] == pytest.approx(ring.figures(100.0)["label_age_p95_s"])
        assert again.figures(0.0)["label_version_max"] == ring.figures(0.0)["label_version_max"]


def test_the_ring_draws_the_shares_asked_for(rng):
    ring = LabelRing(LabelRingConfig(success_share=0.5, terminal_share=0.25))
    position = np.arange(2000)
    ring.put(Targets(position, np.zeros(2000, np.float32), 1), position % 10 == 0, position % 7 == 0, 0.0)
    drawn = ring.sample(20_000, rng)
    assert np.mean(drawn["kind"] & 1) == pytest.approx(0.5, abs=0.02)
    assert np.mean(drawn["kind"] >> 1) == pytest.approx(0.25, abs=0.02)


def test_what_is_not_a_saved_ring_is_refused(tmp_path):
    ring = LabelRing(LabelRingConfig())
    path = tmp_path / "labels.npz"
    for content in (None, b"", b"PK\x03\x04 not really"):
        if content is not None:
            path.write_bytes(content)
        with pytest.raises(CheckpointError, match="labels"):
            ring.load(path, 0.0)
    np.savez(path, position=np.zeros(3))
    with pytest.raises(CheckpointError):
        ring.load(path, 0.0)


@given(st.floats(0.1, 32), st.integers(1, 500), st.integers(1, 64), st.integers(1, 64), st.floats(1.0, 3.0))
def test_settings_that_are_accepted_never_deadlock(ratio, min_size, insert_batch, sample_batch, slack):
    buffer = slack * (sample_batch + ratio * insert_batch) / 2
    limiter = SamplesPerInsert(RateLimiterConfig(ratio, min_size, buffer, insert_batch, sample_batch))
    inserted = sampled = 0
    rng = np.random.default_rng(0)
    for _ in range(300):
        insert_first = rng.random() < 0.5
        for insert in (insert_first, not insert_first):
            if insert and limiter.can_insert(insert_batch):
                limiter.count_insert(insert_batch)
                inserted += insert_batch
                break
            if not insert and limiter.take_samples(sample_batch, 0.0):
                sampled += sample_batch
                break
        else:
            pytest.fail(f"both wait after {inserted} labels and {sampled} samples")
    assert inserted < min_size or abs((inserted - min_size) * ratio - sampled) <= buffer + ratio * insert_batch


def test_settings_that_would_deadlock_are_refused_with_numbers():
    with pytest.raises(ConfigError, match=r"error_buffer 10 would deadlock .* at least 96"):
        RateLimiterConfig(samples_per_insert=2.0, error_buffer=10, insert_batch=64, sample_batch=64)


def test_the_limiter_wakes_who_waits_and_says_who():
    limiter = SamplesPerInsert(
        RateLimiterConfig(samples_per_insert=1.0, min_size=4, error_buffer=4, insert_batch=4, sample_batch=4)
    )
    assert limiter.status() == "nobody waits"
    assert not limiter.take_samples(4, 0.0)
    taken = []
    trainer = threading.Thread(target=lambda: taken.append(limiter.take_samples(4, 20.0)))
    trainer.start()
    while limiter.status() == "nobody waits":
        time.sleep(0.001)
    assert limiter.status() == "trainer waits for the first labels (0 of 4)"
    limiter.count_insert(4)
    trainer.join()
    assert taken == [True]
    limiter.count_insert(8)
    updater = threading.Thread(target=lambda: taken.append(limiter.wait_to_insert(4, 20.0)))
    updater.start()
    while limiter.status() != "updaters wait for the trainer":
        time.sleep(0.001)
    assert limiter.take_samples(4, 0.0)
    updater.join()
    assert taken == [True, True]
    assert limiter.figures()["labels_sampled"] == 8


def test_a_batch_that_could_make_both_sides_wait_for_ever_is_refused():
    limiter = SamplesPerInsert(RateLimiterConfig(samples_per_insert=2.0, insert_batch=64, sample_batch=32))
    with pytest.raises(ConfigError, match="insert_batch 64"):
        limiter.wait_to_insert(65, 0.0)
    with pytest.raises(ConfigError, match="sample_batch 32"):
        limiter.take_samples(33, 0.0)
    assert limiter.wait_to_insert(64, 0.0)
