"""What each WebUI answers to the questions a style session asks."""
