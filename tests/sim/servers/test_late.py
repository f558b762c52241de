"""A late link keeps the order, loses nothing, and is late by no more than it says."""

from sim.servers.late import Late

MOST_S = 0.2


def test_what_is_late_comes_in_order_and_in_time():
    link, came = Late(), []
    for tick in range(200):
        now_s = tick * 0.008
        came += [(sent, now_s) for sent in link.through(now_s, now_s, MOST_S if tick < 150 else 0.0)]
    sent = [each for each, _ in came]
    assert sent == sorted(sent)
    assert len(sent) == 200
    assert max(now_s - each for each, now_s in came) <= MOST_S + 0.008
    assert any(now_s - each > MOST_S / 2 for each, now_s in came)


def test_what_is_not_late_passes_at_once():
    link = Late()
    assert [link.through(number, 0.01 * number, 0.0) for number in range(3)] == [[0], [1], [2]]
