"""Quality on data that training never saw: `python -m benchmarks.quality NAME [ARGUMENTS]`, a JSON line a figure."""
