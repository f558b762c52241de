"""A complete, distributed grasping pipeline in the style of QT-Opt."""

__version__ = "0.1.0"
