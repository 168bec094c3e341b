"""modules/shared.py, options.py, shared_state.py, shared_cmd_options.py."""

from __future__ import annotations

from typing import Any


class OptionInfo:
    """One setting, as options.py has it."""

    def __init__(
        self,
        default: Any = None,
        label: str = "",
        component: Any = None,
        component_args: Any = None,
        section: tuple[str, str] | None = None,
        category_id: str | None = None,
    ) -> None:
        self.default, self.label, self.component, self.component_args = default, label, component, component_args
        self.section, self.category_id, self.comment_after = section, category_id, ""

    def info(self, text: str) -> OptionInfo:
        self.comment_after += f"<span class='info'>({text})</span>"
        return self

    def needs_reload_ui(self) -> OptionInfo:
        self.comment_after += " <span class='info'>(requires Reload UI)</span>"
        return self


class Options:
    """Settings as attributes; one that nobody has registered or saved is missing."""

    def __init__(self, **data: Any) -> None:
        self.data_labels: dict[str, OptionInfo] = {}
        self.data = data

    def add_option(self, key: str, info: OptionInfo) -> None:
        self.data_labels[key] = info
        self.data.setdefault(key, info.default)

    def __getattr__(self, name: str) -> Any:
        try:
            return vars(self)["data"][name]
        except KeyError:
            raise AttributeError(name) from None


class State:
    """What the WebUI is doing now."""

    def __init__(self) -> None:
        self.job, self.textinfo = "", None
        self.sampling_step = self.sampling_steps = 0
        self.skipped = self.interrupted = False

    def begin(self, job: str) -> None:
        self.__init__()  # type: ignore[misc]
        self.job = job

    def end(self) -> None:
        self.job = ""
