"""What ``qtopt figures`` draws from: the files of runs, and episodes run for the purpose."""
