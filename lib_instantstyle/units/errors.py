"""What can go wrong, said so that a person can act: the rule, the value given, the way out."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from contextlib import contextmanager

LABELS: dict[str, str] = {}  # what people call a unit's fields; the schema (units.unit) fills it in

log = logging.getLogger("InstantStyle")


class InstantStyleError(Exception):
    """A refusal that names the rule, the value given and the way out.

    `field` is the unit's field at fault and `unit` its number counted from 1; both may be unknown
    where the error is raised and are then filled in by whoever knows them (`placed`). Programs read them as they are,
    people read "Reference 1, Style weight".
    """

    status_code = 422  # the HTTP answer to a payload that runs into this error
    shared = False  # whether every process of a training raises it, so that the first tells it for all

    def __init__(self, message: str, field: str | None = None, unit: int | None = None) -> None:
        self.message = message.encode("utf-8", "replace").decode("utf-8")  # a file's name may hold what no answer can
        super().__init__(self.message)
        self.field = field
        self.unit = unit

    def at(self, *, unit: int | None = None, field: str | None = None) -> InstantStyleError:
        """The same error with its place filled in; what is already known stays."""
        self.unit = self.unit if self.unit is not None else unit
        self.field = self.field or field
        return self

    def as_json(self) -> dict[str, object]:
        """The body of an API refusal."""
        return {"error": type(self).__name__, "unit": self.unit, "field": self.field, "message": self.message}

    def __str__(self) -> str:
        place = [f"Reference {self.unit}"] if self.unit is not None else []
        place += [LABELS.get(self.field, self.field)] if self.field else []
        return f"{', '.join(place)}: {self.message}" if place else self.message


@contextmanager
def placed(*, unit: int | None = None, field: str | None = None) -> Iterator[None]:
    """Errors that leave the block carry the place, as far as they do not know it themselves."""
    try:
        yield
    except InstantStyleError as error:
        error.at(unit=unit, field=field)
        raise


class UnitError(InstantStyleError):
    """A unit asks for something that is not in the schema or contradicts itself."""


class PictureError(InstantStyleError):
    """A reference picture cannot be read."""


class UnknownBlockError(InstantStyleError):
    """An address names no cross-attention block, or one that the adapter file lacks."""


class CheckpointError(InstantStyleError):
    """An adapter or encoder file is broken, or of a kind that cannot be used."""


class AdapterNotFoundError(InstantStyleError):
    """No adapter file of that name is installed."""

    status_code = 404


class LoraNotFoundError(InstantStyleError):
    """No LoRA file of that name is installed."""

    status_code = 404


class EncoderNotFoundError(InstantStyleError):
    """The image encoder that the adapter needs is not installed."""


class TextTowerNotFoundError(InstantStyleError):
    """The text tower that reads content prompts for the adapter's image encoder is not installed."""


class IncompatibleModelError(InstantStyleError):
    """The loaded checkpoint, or its UNet, is not one this adapter or extension can style."""


class StoppedError(InstantStyleError):
    """Somebody pressed Interrupt."""

    status_code = 409


class StyleNotAppliedError(InstantStyleError):
    """Sampling went by without the style reaching the UNet."""

    status_code = 500


class UnexpectedError(InstantStyleError):
    """A bug, or the machine's trouble: never the payload's fault."""

    status_code = 500

    def __init__(self, error: Exception) -> None:
        of_a_file = isinstance(error, OSError) and error.strerror  # the rest of it is a path on this machine
        super().__init__(f"InstantStyle failed: {type(error).__name__}: {of_a_file or error}")


def explained(error: Exception) -> InstantStyleError:
    """An error as a person is told of it. One that nobody has foreseen goes into the log with its trace."""
    if isinstance(error, InstantStyleError):
        return error
    log.exception("Unexpected error", exc_info=error)
    return UnexpectedError(error)
