"""Handlers that report how far they are, also in a WebUI that was started without gradio's queue."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import gradio as gr

from modules import shared


def with_progress(handler: Callable[..., Any]) -> Callable[..., Any]:
    """`handler(progress, *values)` as gradio calls it, with a bar.

    gradio refuses to start when a handler asks for a bar and there is no queue (`--no-gradio-queue`): then it has none.
    """
    if getattr(shared.cmd_opts, "no_gradio_queue", False):
        return lambda *values: handler(lambda share, text: None, *values)

    def with_bar(progress: Any = gr.Progress(), *values: Any) -> Any:  # noqa: B008 - gradio's way to ask for one
        return handler(lambda share, text: progress(share, desc=text), *values)

    return with_bar
