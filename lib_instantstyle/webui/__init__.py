"""Where it runs, one: the WebUIs of AUTOMATIC1111's family. Only this wing imports `modules`, gradio and FastAPI."""
