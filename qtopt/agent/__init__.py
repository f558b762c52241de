"""The algorithm: networks, cross-entropy method, targets, learner, policies. Start with ``cem`` and ``targets``."""
