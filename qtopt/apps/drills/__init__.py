"""Drills: faults, load and attacks on a real system; each prints its figures."""
