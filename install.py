"""Run by the WebUI at every start. All that the extension needs ships with the WebUI: nothing to install."""
