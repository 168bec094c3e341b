"""What the style costs: time per step, memory, bytes read, and how each grows. `python -m benchmarks`.

Every figure is a ratio within one run: the subjects take turns, round by round, so that a busy machine slows them all.
"""
