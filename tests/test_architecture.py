"""The rules of the house, read off the source: who may import whom, and what nobody may do."""

from __future__ import annotations

import ast
import graphlib
import sys
from collections.abc import Iterator
from fnmatch import fnmatch
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
LIBRARY = "lib_instantstyle"
CORE, HOSTS, SESSION = f"{LIBRARY}.core", f"{LIBRARY}.hosts", f"{LIBRARY}.session"
SESSION_ROOMS = [
    SESSION,
    *(f"{LIBRARY}.{name}" for name in ("plans", "embedding", "removal", "vocabulary", "analysis", "analysis_json")),
]
# Not for the WebUI.
STANDALONE_WING = tuple(f"{LIBRARY}.{room}" for room in ("hosts.standalone", "training", "cli", "__main__"))
STANDALONE_ONLY = {"diffusers", "tqdm", "accelerate", "huggingface_hub"}
BORROWED = {"torch", "transformers", "safetensors", "PIL", "numpy"}  # come with every WebUI
WEBUI = {"modules", "gradio", "fastapi", "ldm", "sgm"}
WEBUI_ROOMS = [
    "lib_instantstyle/hosts/a1111*.py",
    "lib_instantstyle/ui/*",
    "lib_instantstyle/api.py",
    "scripts/*",
    "install.py",
    "preload.py",
]
# From what can be asked for, by way of what a file is, to what is computed: each may import only what stands above it.
CORE_LINE = [
    "errors",
    "whole_files",
    "schedule",
    "fields",
    "blocks",
    "routing",
    "units",
    "infotext",
    "containers",
    "tensor_files",
    "pictures",
    "phrases",
    "content",
    "projection",
    "clip_formats",
    "clip_vision",
    "clip_text",
    "patch_head",
    "patch_content",
    "checkpoint",
    "embed_store",
    "key_values",
    "attention",
]


def sources(*folders: str) -> list[Path]:
    found = [path for folder in folders for path in (ROOT / folder).rglob("*.py")]
    return sorted(found + [path for name in ("install.py", "preload.py") if (path := ROOT / name).exists()])


SHIPPED = sources(LIBRARY, "scripts")


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


def inner_graph(*folders: str) -> dict[str, set[str]]:
    return {
        module_of(path): {ours(name) for name in imports(path) if name.startswith(LIBRARY)} - {module_of(path)}
        for path in sources(*folders)
        if module_of(path).startswith(LIBRARY)
    }


def calls(path: Path) -> Iterator[ast.Call]:
    return (node for node in ast.walk(ast.parse(path.read_text("utf-8"))) if isinstance(node, ast.Call))


def test_core_knows_nobody_but_itself_and_what_every_webui_brings() -> None:
    allowed = BORROWED | set(sys.stdlib_module_names)
    for path in sources(f"{LIBRARY}/core"):
        if CORE in module_of(path):
            strangers = {x for x in imports(path) if not x.startswith(CORE) and x.split(".")[0] not in allowed}
            assert not strangers, f"{path.name} imports {strangers}"


def test_imports_form_no_circle() -> None:
    order = list(graphlib.TopologicalSorter(inner_graph(LIBRARY)).static_order())  # raises CycleError
    assert f"{CORE}.errors" in order


def test_core_modules_import_only_what_stands_above_them() -> None:
    graph = inner_graph(f"{LIBRARY}/core")
    modules = {name.removeprefix(f"{CORE}.") for name in graph if name.startswith(f"{CORE}.")}
    assert modules == set(CORE_LINE)
    for at, module in enumerate(CORE_LINE):
        above = {f"{CORE}.{name}" for name in CORE_LINE[:at]}
        assert graph[f"{CORE}.{module}"] <= above, f"{module} imports {graph[f'{CORE}.{module}'] - above}"


def test_attention_is_a_leaf() -> None:
    graph = inner_graph(f"{LIBRARY}/core")
    assert graph[f"{CORE}.attention"] == {f"{CORE}.key_values"}
    assert graph[f"{CORE}.key_values"] == {f"{CORE}.schedule"}
    assert not [name for name, known in graph.items() if f"{CORE}.attention" in known]


def test_session_and_its_parts_know_core_the_hosts_protocol_and_each_other_only() -> None:
    graph = inner_graph(LIBRARY)
    for module in SESSION_ROOMS:
        known = {name for name in graph[module] if not name.startswith(f"{CORE}.")}
        assert known <= {f"{HOSTS}.protocol", *SESSION_ROOMS}, module


def test_protocol_knows_core_only() -> None:
    assert all(name.startswith(f"{CORE}.") for name in inner_graph(LIBRARY)[f"{HOSTS}.protocol"])


def test_hosts_and_session_know_no_room_with_a_user_in_it() -> None:
    for module, known in inner_graph(LIBRARY).items():
        if module.startswith((CORE, HOSTS, *SESSION_ROOMS)):
            assert not [name for name in known if name.startswith((f"{LIBRARY}.ui", f"{LIBRARY}.api"))], module


def test_the_webui_never_imports_the_standalone_wing() -> None:
    for path in SHIPPED:
        if not module_of(path).startswith(STANDALONE_WING):
            assert not [name for name in imports(path) if ours(name).startswith(STANDALONE_WING)], path.name
            assert not {name.split(".")[0] for name in imports(path)} & STANDALONE_ONLY, path.name


def test_the_standalone_wing_knows_no_room_of_the_webui() -> None:
    webui = (f"{HOSTS}.a1111", f"{LIBRARY}.ui", f"{LIBRARY}.api", "scripts")
    for module, known in inner_graph(LIBRARY).items():
        if module.startswith(STANDALONE_WING):
            assert not [name for name in known if name.startswith(webui)], module


def test_hosts_and_training_know_no_command() -> None:
    for module, known in inner_graph(LIBRARY).items():
        if module.startswith((HOSTS, f"{LIBRARY}.training")):
            assert not [name for name in known if name.startswith(f"{LIBRARY}.cli")], module


def test_diffusers_is_imported_only_inside_functions() -> None:
    for path in SHIPPED:
        for node in ast.parse(path.read_text("utf-8")).body:
            if isinstance(node, (ast.Import, ast.ImportFrom)):
                names = [getattr(node, "module", None) or "", *(name.name for name in node.names)]
                assert not {name.split(".")[0] for name in names} & STANDALONE_ONLY, path.name


def test_the_webui_is_never_asked_to_install_what_the_standalone_wing_needs() -> None:
    assert not list(ast.parse((ROOT / "install.py").read_text("utf-8")).body[1:])  # a docstring, and nothing done


@pytest.mark.parametrize("path", SHIPPED, ids=lambda path: str(path.relative_to(ROOT)))
def test_only_the_rooms_of_the_webui_import_it(path: Path) -> None:
    name = path.relative_to(ROOT).as_posix()
    known = {x.split(".")[0] for x in imports(path)} & WEBUI
    assert not known or any(fnmatch(name, room) for room in WEBUI_ROOMS)


# But for the one that gives classes of layers their own forward back, while the WebUI has them cast.
FORWARDS_STAY = [path for path in SHIPPED if path.name != "a1111_casting.py"]


@pytest.mark.parametrize("path", FORWARDS_STAY, ids=lambda path: str(path.relative_to(ROOT)))
def test_nobody_replaces_a_forward(path: Path) -> None:
    for node in ast.walk(ast.parse(path.read_text("utf-8"))):
        targets = getattr(node, "targets", [getattr(node, "target", None)])
        assert not [one for one in targets if isinstance(one, ast.Attribute) and one.attr == "forward"]
    for call in calls(path):
        named = [argument.value for argument in call.args if isinstance(argument, ast.Constant)]
        assert not (isinstance(call.func, ast.Name) and call.func.id == "setattr" and "forward" in named)


@pytest.mark.parametrize("path", SHIPPED, ids=lambda path: str(path.relative_to(ROOT)))
def test_pickles_are_read_with_weights_only_and_never_directly(path: Path) -> None:
    for call in calls(path):
        if ast.unparse(call.func) == "torch.load":
            given = {keyword.arg: ast.unparse(keyword.value) for keyword in call.keywords}
            assert given.get("weights_only") == "True"
        assert ast.unparse(call.func) not in ("pickle.load", "pickle.loads", "pickle.Unpickler", "eval", "exec")


@pytest.mark.parametrize("path", SHIPPED, ids=lambda path: str(path.relative_to(ROOT)))
def test_nobody_prints(path: Path) -> None:
    assert not [call for call in calls(path) if isinstance(call.func, ast.Name) and call.func.id == "print"]


@pytest.mark.parametrize("path", SHIPPED, ids=lambda path: str(path.relative_to(ROOT)))
def test_functions_stay_short_and_take_few_parameters(path: Path) -> None:
    for node in ast.walk(ast.parse(path.read_text("utf-8"))):
        if isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef)):
            assert (node.end_lineno or 0) - node.lineno < 50, node.name
            assert len(node.args.posonlyargs) + len(node.args.args) + len(node.args.kwonlyargs) <= 7, node.name
