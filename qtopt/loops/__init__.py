"""What the roles do, written against the interfaces alone; the loops yield what happened."""
