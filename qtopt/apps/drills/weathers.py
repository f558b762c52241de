"""Whether a spell of weather happened: by the link's own counters, and by what the collectors noticed of it."""

import math
from collections.abc import Iterator, Sequence
from typing import Final

from qtopt.apps.drills.link import Spell, Traffic, Weather

_FEWEST: Final = 50
_DEVIATIONS: Final = 4.0
"""So many packets tell a share of 0.3 from none; chance alone lies so far off once in ten thousand spells."""


def unlike(spell: Spell, acknowledged_s: Sequence[float]) -> list[str]:
    """Returns, in words, in what a spell was not the weather that it should have been.

    Args:
        spell: whose counters are read; the link's first end is the server's, its second one the collectors'.
        acknowledged_s: after how long each episode that was finished in it was acknowledged in it [s].
    """
    weather = spell.weather
    ways = (
        ("to the collectors", spell.forward, weather.forward),
        ("to the server", spell.backward, weather.backward),
    )
    if weather.forward and weather.backward:
        found = [said for where, traffic, _ in ways for said in _carried(where, weather, traffic)]
        fastest_s = min(acknowledged_s, default=0.0)
        if weather.delay_s and fastest_s < 2 * weather.delay_s:
            found.append(f"the fastest episode took {fastest_s:.2f} s there and back, expected {2 * weather.delay_s:g}")
        return found
    found = [
        f"{traffic.passed} packets {where} passed, expected {'some' if passes else 'none'}"
        for where, traffic, passes in ways
        if bool(traffic.passed) != passes
    ]
    if not spell.forward.lost + spell.backward.lost:
        found.append("no packet was lost, expected some on a link that is cut")
    if acknowledged_s:
        found.append(f"{len(acknowledged_s)} episodes were acknowledged over a link that does not carry both ways")
    return found


def _carried(where: str, weather: Weather, traffic: Traffic) -> Iterator[str]:
    packets = traffic.passed + traffic.lost
    if packets < _FEWEST:
        yield f"{packets} packets came {where}, expected {_FEWEST} or more to judge by"
        return
    margin = _DEVIATIONS * math.sqrt(weather.loss * (1 - weather.loss) / packets)
    if weather.loss and abs(traffic.share_lost - weather.loss) > margin:
        yield f"{traffic.share_lost:.2f} of {packets} packets {where} were lost, expected {weather.loss:g}"
    if traffic.shortest_s < weather.delay_s:
        yield f"a packet {where} was on its way for {traffic.shortest_s:.3f} s, expected {weather.delay_s:g} or more"
