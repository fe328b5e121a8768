"""How does a real engine's pace grow with the number of callers, and does the mock follow?"""
