"""Drivers of arms, grippers and cameras; each module imports its vendor's library only when it is opened."""
