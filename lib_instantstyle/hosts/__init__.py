"""The rooms that know where the extension runs: the WebUI, and the folders with its model files."""
