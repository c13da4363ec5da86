"""The four flows of this project, each to be read in a minute."""
