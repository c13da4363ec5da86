"""Side-by-side measurements: each module prints one JSON line a figure. Run alone, on an idle machine."""
