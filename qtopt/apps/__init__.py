"""One file for each process: configuration, wiring, running, closing."""
