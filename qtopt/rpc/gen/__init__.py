"""Generated from protos/ by ``python -m qtopt.rpc.generate``; do not edit."""
