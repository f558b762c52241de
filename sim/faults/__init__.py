"""The fault matrix: every fault against a real cell, and what the simulated arm then really did.

``python -m sim.faults`` runs it. A cell is a simulated controller in a process of its own, behind the vendor's
protocol, driven by the production processes through the vendor's own client; what is judged is the plant's way, not a
report.
"""
