"""Only new commands of the living session are carried out."""

import pytest

from robot_bridge.remote.session import Session, SessionRefused


class Clock:
    now_s = 100.0

    def __call__(self):
        return self.now_s


@pytest.fixture
def clock():
    return Clock()


@pytest.fixture
def session(clock):
    return Session(0.5, clock)


def test_numbers_must_rise(session):
    name = session.claim()
    session.admit(name, 1)
    session.admit(name, 5)
    for replayed in (5, 4, 1):
        with pytest.raises(SessionRefused, match="replayed or out of order"):
            session.admit(name, replayed)
    session.admit(name, 6)


def test_a_stop_overtakes_commands_that_are_still_on_their_way(session):
    name = session.claim()
    session.admit(name, 1)
    session.admit_stop(name, 3)
    with pytest.raises(SessionRefused):
        session.admit(name, 2)
    session.admit(name, 4)
    session.admit_stop(name, 2)
    session.admit(name, 5)


def test_a_strangers_stop_does_not_move_the_number(session):
    name = session.claim()
    session.admit_stop("", 1_000)
    session.admit_stop("other", 1_000)
    session.admit(name, 1)


def test_heartbeats_have_their_own_numbers_and_cannot_be_replayed(session):
    name = session.claim()
    session.admit(name, 40)
    session.beat(name, 1)
    with pytest.raises(SessionRefused):
        session.beat(name, 1)


def test_only_one_client_at_a_time(session):
    name = session.claim()
    with pytest.raises(SessionRefused, match="another client"):
        session.claim()
    session.release(name)
    with pytest.raises(SessionRefused, match="still being stopped"):
        session.claim()
    session.free()
    assert session.claim() != name


def test_silence_ends_the_session_once_and_for_good(session, clock):
    name = session.claim()
    clock.now_s += 0.4
    session.beat(name, 1)
    clock.now_s += 0.4
    assert not session.expire()
    clock.now_s += 0.2
    assert session.expire()
    assert not session.expire()
    with pytest.raises(SessionRefused, match="connect again"):
        session.beat(name, 2)
    with pytest.raises(SessionRefused):
        session.admit(name, 9)
    session.free()
    fresh = session.claim()
    with pytest.raises(SessionRefused):
        session.admit(name, 10)
    session.admit(fresh, 1)


def test_a_stop_is_no_sign_of_life(session, clock):
    name = session.claim()
    clock.now_s += 0.6
    session.admit_stop(name, 1)
    assert session.expire()


@pytest.mark.parametrize("name", ["", "x", "0" * 32])
def test_without_the_sessions_name_nothing_is_admitted(session, name):
    with pytest.raises(SessionRefused):
        session.admit(name, 1)
    session.claim()
    with pytest.raises(SessionRefused):
        session.admit(name, 1)
