"""What keeps flows honest: one at a time, watched while they live, cleaned up after when they die."""
