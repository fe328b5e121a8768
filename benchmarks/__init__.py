"""Measurements, and the results they left: ``python -m benchmarks list`` and ``python -m benchmarks run NAME``."""
