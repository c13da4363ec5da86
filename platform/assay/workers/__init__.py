"""Brings a training to its processes: this one, or Ray's workers on this machine or on the nodes of a cluster."""
