"""What is on disk: adapters, image encoders and text towers, told apart by their contents, and where they lie."""
