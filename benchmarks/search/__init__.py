"""What searches find, and what they cost."""
