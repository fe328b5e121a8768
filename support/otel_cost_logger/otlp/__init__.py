"""OTLP: spans as its bytes and back, and what a collector answers to them."""
