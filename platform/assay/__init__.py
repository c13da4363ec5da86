"""Assay: a distributed experiment platform for deep learning."""

__version__ = "0.1.0"
