"""What the style costs: arithmetic, time, memory, bytes read, and how each grows. `python -m benchmarks`.

Every ratio is one within one run: the subjects take turns, round by round, so that a busy machine slows them all.
"""
