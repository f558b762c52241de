"""A Franka's controller: franky-sim, run by an interpreter of its own that has it."""
