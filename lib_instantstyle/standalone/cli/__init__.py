"""The command line: one module for each command, and `app` that finds it and answers for its errors."""
