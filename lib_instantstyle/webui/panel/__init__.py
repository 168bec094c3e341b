"""What a person sees in the WebUI: the controls, and the way from them to units."""
