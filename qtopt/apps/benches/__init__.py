"""What ``qtopt bench`` measures, one file each."""
