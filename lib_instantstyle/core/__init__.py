"""The method itself: tensors, files, units and plans. Knows neither a WebUI nor gradio."""
