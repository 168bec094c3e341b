"""A small world that the project draws itself, and the SDXL-layout model that is trained on it."""
