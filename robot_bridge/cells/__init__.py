"""Example cell files, to be copied and filled in: ``robot_bridge/cells/*.toml``."""
