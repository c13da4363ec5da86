"""Measurements on a cluster of Ray nodes on this machine."""
