"""What a person sees in the WebUI: the panel, its settings, and the way from its components to units."""
