"""HTTP endpoints; none changes anything. Generation goes through `alwayson_scripts` of the WebUI's own API."""

from __future__ import annotations

import secrets
from collections.abc import Callable
from typing import Any

from fastapi import Body, Depends, FastAPI, HTTPException
from fastapi.security import HTTPBasic, HTTPBasicCredentials

from modules import shared

from .. import __version__
from ..files.installed import ModelFiles
from ..reference.analysis_json import as_json, read_request
from ..units.errors import InstantStyleError
from ..units.methods import METHODS
from ..units.routing import PRESETS, STYLE_BLOCK
from ..units.unit import unit_schema
from .measuring import analyse_in_turn
from .refusals import InstantStyleRefused


def add_endpoints(app: FastAPI, files: ModelFiles) -> None:
    """Publish GET /instantstyle/{version,adapters,presets,unit} and POST /instantstyle/analyze, behind --api-auth."""
    answers: dict[str, Callable[[], Any]] = {
        "version": lambda: {"version": __version__},
        "adapters": lambda: describe_adapters(files),
        "presets": describe_presets,
        "unit": unit_schema,
    }
    guards = _guards(shared.cmd_opts.api_auth)
    for name, describe in answers.items():
        app.add_api_route(f"/instantstyle/{name}", describe, methods=["GET"], dependencies=guards)
    app.add_api_route("/instantstyle/analyze", analyze, methods=["POST"], dependencies=guards)


def analyze(body: Any = Body(None)) -> dict[str, Any]:  # noqa: B008 - FastAPI's way
    """What a unit's reference shows and what is left of its content; waits for the jobs before it in the queue,
    and lets those that come later in while it reads its vocabulary for the first time.
    """
    try:
        unit, count = read_request(body)
        return as_json(analyse_in_turn(unit, count))
    except InstantStyleError as error:
        raise InstantStyleRefused(error) from None


def describe_adapters(files: ModelFiles) -> dict[str, Any]:
    """Installed adapters with what each needs, and why others are refused. File names only, no paths."""
    usable = [
        {
            "name": info.name,
            "variant": info.variant,
            "tokens": info.tokens,
            "encoder": info.feature.encoder_name,
            "encoder_installed": any(encoder.gives(info.feature) for encoder in files.encoders.usable()),
            "layers": len(info.layer_widths),
        }
        for info in files.adapters.usable()
    ]
    return {"adapters": usable, "refused": [error.message for error in files.adapters.unusable()]}


def describe_presets() -> list[dict[str, Any]]:
    """The presets with their blocks and sources; of_methods: what a method has in place of the style block."""
    own = {method.name: method.blocks for method in METHODS.values() if method.blocks}
    return [
        {
            "name": preset.name,
            "label": preset.label,
            "weighted": preset.weighted,
            "layout_weighted": preset.layout_weighted,
            "source": preset.source,
            "of_methods": {name: blocks for name, blocks in own.items() if preset.weighted == (STYLE_BLOCK,)},
        }
        for preset in PRESETS.values()
    ]


def _guards(api_auth: str | None) -> list[Any]:
    """The WebUI's own --api-auth protects its own routes only; ours ask for the same credentials."""
    if not api_auth:
        return []
    passwords = dict(pair.split(":", 1) for pair in api_auth.split(","))

    def check(credentials: HTTPBasicCredentials = Depends(HTTPBasic())) -> None:  # noqa: B008 - FastAPI's way
        expected = passwords.get(credentials.username)
        if expected is None or not secrets.compare_digest(credentials.password.encode(), expected.encode()):
            raise HTTPException(401, "Incorrect username or password", {"WWW-Authenticate": "Basic"})

    return [Depends(check)]
