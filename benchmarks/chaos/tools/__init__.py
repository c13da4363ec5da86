"""What the parts share: a project with small experiments, what its stores say, and processes by what they do."""
