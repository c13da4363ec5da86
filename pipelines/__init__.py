"""Prefect flows: when things run, and what happens when they fail. No machine learning here."""
