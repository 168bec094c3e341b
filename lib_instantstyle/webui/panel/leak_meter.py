"""The leak meter: for each phrase how similar the reference is to it, before and after the removal, as two bars."""

from __future__ import annotations

import html

from ...reference.analysis import Meter
from ...reference.removal import Leak
from .readiness import with_links

FULL = 0.4  # cosine of a full bar; pictures and texts that belong together lie between 0.2 and 0.35
OVERSHOT = -0.02  # below this cosine more was taken than there was


def meter_html(meter: Meter) -> str:
    """The bars of all phrases, and what the method *auto* would do; empty when nothing is to be removed."""
    if not meter.phrases:
        return _note("Nothing is removed yet. Tick words above, or type them into the field.")
    full = max(FULL, *(abs(x) for leak in meter.phrases for x in (leak.before, leak.after)))
    rows = "".join(_row(leak, full) for leak in meter.phrases)
    return f'<div class="instantstyle-meter">{rows}</div>{_advice(meter)}'


def problem_html(message: str) -> str:
    return (
        f'<div class="instantstyle-status"><p class="instantstyle-problem">{with_links(html.escape(message))}</p></div>'
    )


def busy_html() -> str:
    return _note("The WebUI is busy. The meter updates on your next change.")


def _row(leak: Leak, full: float) -> str:
    over = leak.after < OVERSHOT
    state = " instantstyle-overshot" if over else ""
    return (
        f'<div class="instantstyle-leak{state}" title="{html.escape(_told(leak))}">'
        f'<span class="instantstyle-phrase">{html.escape(leak.text)}</span>'
        f'<span class="instantstyle-bars">{_bar("before", leak.before, full)}{_bar("after", leak.after, full)}</span>'
        f'<span class="instantstyle-numbers">{leak.before:.2f} → {leak.after:.2f}</span></div>'
    )


def _told(leak: Leak) -> str:
    """The tooltip of a row."""
    return f"{leak.text}: similarity {leak.before:.2f} before the removal (pale), {leak.after:.2f} after it"


def _bar(when: str, cosine: float, full: float) -> str:
    share = 100 * min(abs(cosine) / full, 1.0)
    return f'<i class="instantstyle-{when}" style="width:{share:.1f}%"></i>'


def _advice(meter: Meter) -> str:
    notes = []
    if any(leak.after < OVERSHOT for leak in meter.phrases):
        notes.append(
            "A negative value means more was removed than was there; a lower strength keeps more of the style."
        )
    if meter.auto_scale is not None:
        notes.append(f"Enough for this picture: Project at {meter.auto_scale:.2f} (same as Auto at 1).")
    return _note(" ".join(notes)) if notes else ""


def _note(text: str) -> str:
    return f'<div class="instantstyle-status"><p class="instantstyle-note">{html.escape(text)}</p></div>'
