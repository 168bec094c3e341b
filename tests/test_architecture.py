"""The rules of the house, read from the source: who may import whom, and what nobody may do."""

from __future__ import annotations

import ast
import graphlib
import sys
from collections.abc import Iterator
from pathlib import Path

ROOT = Path(__file__).parents[1]
LIBRARY = "lib_instantstyle"
FLOORS = ("units", "files", "reference", "style")  # each imports only itself and what stands before it
WINGS = ("webui", "standalone")  # know all floors, and not each other
BORROWED = {"torch", "transformers", "safetensors", "PIL", "numpy"}  # come with every WebUI
WEBUI_ONLY = {"modules", "modules_forge", "backend", "ldm_patched", "gradio", "fastapi", "ldm", "sgm"}
STANDALONE_ONLY = {"diffusers", "tqdm", "accelerate", "huggingface_hub"}
WEBUI_FILES = ("lib_instantstyle/webui/", "scripts/", "install.py", "preload.py")

SHIPPED = sorted([*(ROOT / LIBRARY).rglob("*.py"), *(ROOT / "scripts").glob("*.py"), *ROOT.glob("*.py")])


def module_of(path: Path) -> str:
    parts = path.relative_to(ROOT).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


def imports(path: Path) -> Iterator[str]:
    """Dotted names that a file imports anywhere in it, relative ones made absolute."""
    package = module_of(path).split(".") if path.name == "__init__.py" else module_of(path).split(".")[:-1]
    for node in ast.walk(ast.parse(path.read_text("utf-8"))):
        if isinstance(node, ast.Import):
            yield from (name.name for name in node.names)
        elif isinstance(node, ast.ImportFrom):
            start = package[: len(package) - node.level + 1] if node.level else []
            base = ".".join([*start, *filter(None, [node.module])])
            yield from (f"{base}.{name.name}" for name in node.names)


def ours(name: str) -> str:
    """The module of ours that an imported name lies in."""
    while name and not any((ROOT / name.replace(".", "/")).with_suffix(end).exists() for end in (".py", "")):
        name = name.rpartition(".")[0]
    return name


def graph() -> dict[str, set[str]]:
    """Module → modules of ours that it imports."""
    found = {module_of(path): {ours(name) for name in imports(path) if name.startswith(LIBRARY)} for path in SHIPPED}
    return {module: known - {module, LIBRARY} for module, known in found.items()}


def room(module: str) -> str:
    """The folder under the library that a module lies in, or "" for what lies above the rooms."""
    parts = module.split(".")
    return parts[1] if len(parts) > 1 and parts[0] == LIBRARY and parts[1] in FLOORS + WINGS else ""


def arrows_up() -> list[str]:
    """Imports that run against the floors, or from one wing into the other."""
    allowed = {floor: FLOORS[: at + 1] for at, floor in enumerate(FLOORS)}
    allowed |= {wing: (*FLOORS, wing) for wing in WINGS}
    return [
        f"{module} imports {known}"
        for module, all_known in graph().items()
        for known in all_known
        if room(module) in allowed and room(known) not in allowed[room(module)]
    ]


def test_rooms_import_only_floors_before_them() -> None:
    assert not arrows_up()


def test_every_module_lies_in_a_room() -> None:
    loose = {module for module in graph() if module.startswith(f"{LIBRARY}.") and not room(module)}
    assert loose == {f"{LIBRARY}.__main__"}


def test_imports_form_no_circle() -> None:
    order = list(graphlib.TopologicalSorter(graph()).static_order())  # raises CycleError
    assert f"{LIBRARY}.units.errors" in order


def test_floors_borrow_only_what_every_webui_brings() -> None:
    allowed = BORROWED | set(sys.stdlib_module_names) | {LIBRARY}
    for path in SHIPPED:
        if room(module_of(path)) in FLOORS:
            strangers = {name for name in imports(path) if name.split(".")[0] not in allowed}
            assert not strangers, f"{path.name} imports {strangers}"


def test_only_its_own_wing_imports_a_webui_or_diffusers() -> None:
    for path in SHIPPED:
        name, known = path.relative_to(ROOT).as_posix(), {name.split(".")[0] for name in imports(path)}
        assert name.startswith(WEBUI_FILES) or not known & WEBUI_ONLY, name
        assert name.startswith("lib_instantstyle/standalone/") or not known & STANDALONE_ONLY, name


def test_a_webui_imports_neither_the_standalone_wing_nor_the_command_line() -> None:
    for module, known in graph().items():
        if module.startswith(("scripts", "preload", "install")):
            assert not [name for name in known if name.startswith((f"{LIBRARY}.standalone", f"{LIBRARY}.__main__"))]


def test_training_and_the_host_know_no_command() -> None:
    commands = f"{LIBRARY}.standalone.cli"
    for module, known in graph().items():
        if not module.startswith((commands, f"{LIBRARY}.__main__")):
            assert not [name for name in known if name.startswith(commands)], module


def test_diffusers_is_imported_only_inside_functions() -> None:
    for path in SHIPPED:
        for node in ast.parse(path.read_text("utf-8")).body:
            if isinstance(node, (ast.Import, ast.ImportFrom)):
                names = [getattr(node, "module", None) or "", *(name.name for name in node.names)]
                assert not {name.split(".")[0] for name in names} & STANDALONE_ONLY, path.name


def test_nothing_is_installed_for_a_webui() -> None:
    assert not list(ast.parse((ROOT / "install.py").read_text("utf-8")).body[1:])  # a docstring, and nothing done


def test_nobody_replaces_a_forward() -> None:
    for path in SHIPPED:
        if (
            path.name == "a1111_casting.py"
        ):  # gives classes of layers their own forward back, while the WebUI casts them
            continue
        for node in ast.walk(ast.parse(path.read_text("utf-8"))):
            targets = getattr(node, "targets", [getattr(node, "target", None)])
            assert not [one for one in targets if isinstance(one, ast.Attribute) and one.attr == "forward"], path.name
            if isinstance(node, ast.Call) and ast.unparse(node.func) == "setattr":
                assert "'forward'" not in map(ast.unparse, node.args), path.name


def test_pickles_are_read_with_weights_only_and_never_directly() -> None:
    for path in SHIPPED:
        for call in (node for node in ast.walk(ast.parse(path.read_text("utf-8"))) if isinstance(node, ast.Call)):
            if ast.unparse(call.func) == "torch.load":
                assert {word.arg: ast.unparse(word.value) for word in call.keywords}.get("weights_only") == "True"
            assert ast.unparse(call.func) not in ("pickle.load", "pickle.loads", "pickle.Unpickler", "eval", "exec")


def test_functions_stay_short() -> None:
    for path in SHIPPED:
        for node in ast.walk(ast.parse(path.read_text("utf-8"))):
            if isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef)):
                assert (node.end_lineno or 0) - node.lineno < 50, f"{path.name}: {node.name}"
