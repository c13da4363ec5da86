"""Bytes that are elsewhere: runs in object storage, dataset versions in a DVC remote and in a node's cache."""
