"""What is asked for, and how it is refused: units, where and when they act. Knows neither tensors nor files."""
