"""The algorithm: networks, cross-entropy method, targets, learner, policies. Read ``cem``, ``targets`` and ``learner`` first."""
