"""The laws of the house: layers, public names, sizes, examples. See BUILD.md."""

import ast
import dataclasses
import doctest
import importlib
import inspect
import subprocess
import sys
from pathlib import Path

import pytest

import jnst

PACKAGE = Path(jnst.__file__).parent
LAYERS = {
    "types": 0,
    "config": 0,
    "normalizations": 0,
    "errors": 0,
    "version": 0,
    "bundled": 1,
    "files": 1,
    "pickles": 1,
    "strided": 1,
    "images": 1,
    "weights": 1,
    "ops": 1,
    "sqrtm": 1,
    "quilting": 1,
    "memory": 1,
    "compiler": 1,
    "conv": 1,
    "convs": 1,
    "transforms": 1,
    "parameterize": 2,
    "nets": 2,
    "lbfgs": 1,
    "calibration": 1,
    "comparisons": 1,
    "losses": 3,
    "adversarial": 3,
    "distances": 3,
    "heads": 3,
    "prune": 3,
    "objective": 4,
    "tiles": 5,
    "optimize": 5,
    "train": 5,
    "loop": 6,
    "stages": 6,
    "network": 6,
    "winograd": 1,
    "games": 6,
    "gan_layers": 1,
    "image_pool": 1,
    "grid": 6,
    "tasks": 7,
    "inputs": 8,
    "embedding_index": 8,
    "api": 8,
    "cli": 9,
}
# What the commands share.
SHARED_BY_COMMANDS = {"batch", "cache", "checkpoint", "cluster", "command", "comparing", "download"}
SHARED_BY_COMMANDS |= {"dreaming", "estimate", "film", "filming", "flags", "gallery", "interrupt"}
SHARED_BY_COMMANDS |= {"inverting", "lines", "looks", "maximizing", "page", "painting", "plan", "progress"}
SHARED_BY_COMMANDS |= {"applying", "brush", "ffmpeg", "filmed", "sharing", "tree"}
SHARED_BY_COMMANDS |= {"fast_results", "fast_training", "training_checkpoints"}
SHARED_BY_COMMANDS |= {"gan_board", "gan_folder", "gan_results", "gan_scores", "gan_training", "gan_work"}
SHARED_BY_COMMANDS |= {"combining", "evaluating", "generating", "sampling", "translating", "translator"}
SHARED_BY_COMMANDS |= {"applying", "brush", "ffmpeg", "filmed", "sharing"}
SHARED_BY_COMMANDS |= {"report", "run", "showing", "sweep", "texturing", "training"}

FILES = sorted(PACKAGE.rglob("*.py"))
MODULES = [
    ".".join(("jnst", *path.relative_to(PACKAGE).with_suffix("").parts)).removesuffix(".__init__") for path in FILES
]
each_module = pytest.mark.parametrize("module", MODULES)


def _imports(path, package):
    """The modules of jnst that a file imports, wherever in it."""
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names if alias.name.split(".")[0] == "jnst")
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path}: imports are written in full"
            if node.module.split(".")[0] == "jnst":
                for alias in node.names:
                    full = f"{node.module}.{alias.name}"
                    yield full if full in MODULES else node.module


def _problem(importer, imported):
    """What is wrong with one import, or None."""
    ours, theirs = importer.split(".")[1:], imported.split(".")[1:]
    if not ours or not theirs or importer == imported:  # jnst/__init__.py is the door: it opens on everything
        return None
    if LAYERS[ours[0]] > LAYERS[theirs[0]]:
        return None
    if ours[0] != theirs[0]:
        same = LAYERS[ours[0]] == LAYERS[theirs[0]]
        return None if same and ours[0] not in ("nets", "tasks", "cli") else "goes up"
    if ours[0] == "tasks" and len(ours) > 1 and ours[:2] == theirs[:2]:  # a task may be a package
        return None
    if ours[0] in ("config", "images", "tiles", "weights") or (ours[0] == "cli" and theirs[-1] in SHARED_BY_COMMANDS):
        return None
    return "imports a sibling"


def test_every_module_has_a_layer():
    assert {module.split(".")[1] for module in MODULES if module != "jnst"} <= set(LAYERS)


@each_module
def test_imports_go_down_only(module):
    path = FILES[MODULES.index(module)]
    wrong = {target: problem for target in _imports(path, module) if (problem := _problem(module, target))}
    assert not wrong


@pytest.mark.parametrize(
    ("importer", "imported", "problem"),
    [
        ("jnst.ops", "jnst.losses", "goes up"),
        ("jnst.losses", "jnst.ops", None),
        ("jnst.config", "jnst.errors", None),
        ("jnst.api", "jnst.cli.flags", "goes up"),
        ("jnst.nets.unet", "jnst.nets.vgg", "imports a sibling"),
        ("jnst.tasks.fast", "jnst.tasks.stylize", "imports a sibling"),
        ("jnst.tasks.fast", "jnst.tasks.stylize.one", "imports a sibling"),
        ("jnst.tasks.stylize.one", "jnst.tasks.stylize.parts", None),
        ("jnst.cli.grid", "jnst.cli.stylize", "imports a sibling"),
        ("jnst.cli.grid", "jnst.cli.flags", None),
    ],
)
def test_the_walk_would_notice(importer, imported, problem):
    assert _problem(importer, imported) == problem


@pytest.mark.slow
def test_same_layer_imports_make_no_circle():
    files = zip(MODULES, FILES, strict=True)
    graph = {module: set(_imports(path, module)) - {"jnst", module} for module, path in files}
    done, path = set(), []

    def visit(module):
        assert module not in path, " -> ".join([*path, module])
        if module not in done:
            path.append(module)
            for target in graph[module]:
                visit(target)
            done.add(path.pop())

    for module in MODULES:
        if module != "jnst":
            visit(module)


@pytest.mark.parametrize(
    "module",
    ["jnst", "jnst.config", "jnst.normalizations", "jnst.images", "jnst.weights", "jnst.cli.stylize", "jnst.cli.grid"],
)
def test_loads_without_jax(module):
    code = f"import {module}, sys; sys.exit('jax' in sys.modules or 'optax' in sys.modules)"
    subprocess.run([sys.executable, "-P", "-c", code], check=True, timeout=60)


@pytest.mark.parametrize("command", ["stylize", "grid"])
@pytest.mark.parametrize("argument", ["--help", "--version"])
def test_the_command_says_what_it_is_without_jax(command, argument):
    code = f"import sys; from jnst.cli.{command} import main; main(['x', '{argument}']); sys.exit('jax' in sys.modules)"
    subprocess.run([sys.executable, "-P", "-c", code], check=True, timeout=60, stdout=subprocess.DEVNULL)


@pytest.mark.parametrize(
    "folder", ["ops", "conv", "nets", "heads", "losses", "objective", "optimize", "prune", "train"]
)
def test_jit_is_left_to_tasks(folder):
    paths = [path for path, module in zip(FILES, MODULES, strict=True) if module.split(".")[1:2] == [folder]]
    assert paths
    for path in paths:
        assert "jax.jit" not in path.read_text(), path


@pytest.mark.parametrize("path", FILES, ids=lambda path: str(path.relative_to(PACKAGE)))
def test_no_file_is_longer_than_400_lines(path):
    assert len(path.read_text().splitlines()) <= 400


@each_module
def test_doctests_hold(module):
    result = doctest.testmod(importlib.import_module(module), raise_on_error=False)
    assert result.failed == 0


def test_there_are_doctests():
    assert sum(path.read_text().count(">>> ") for path in FILES) > 10


def _public(module):
    """Name and object of each public name."""
    loaded = importlib.import_module(module)
    for name in getattr(loaded, "__all__", ()):
        yield name, getattr(loaded, name)


@each_module
def test_every_module_is_documented_and_names_what_is_public(module):
    loaded = importlib.import_module(module)
    assert loaded.__doc__, module
    tree = ast.parse(Path(loaded.__file__).read_text())
    defined = [node.name for node in tree.body if isinstance(node, (ast.FunctionDef, ast.ClassDef))]
    if any(not name.startswith("_") for name in defined):
        public = set(loaded.__all__)
        assert {name for name in defined if not name.startswith("_")} <= public
        assert sorted(loaded.__all__) == sorted(public), "a name stands twice"


@each_module
def test_every_public_function_is_documented_annotated_and_takes_its_key_first(module):
    for name, thing in _public(module):
        if inspect.isfunction(thing):
            _check_function(f"{module}.{name}", thing)
        elif inspect.isclass(thing) and thing.__module__ == module:
            assert thing.__doc__, name
            assert not thing.__doc__.startswith(f"{name}("), f"{module}.{name}: the docstring that Python made up"
            fields = {field.name for field in dataclasses.fields(thing)} if dataclasses.is_dataclass(thing) else set()
            for method_name, method in vars(thing).items():
                if inspect.isfunction(method) and not method_name.startswith("_") and method_name not in fields:
                    _check_function(f"{module}.{name}.{method_name}", method)
                if isinstance(method, property):
                    assert method.__doc__, f"{module}.{name}.{method_name}"


def _check_function(name, function):
    assert function.__doc__, name
    signature = inspect.signature(function)
    assert signature.return_annotation is not inspect.Signature.empty, name
    parameters = [parameter for parameter in signature.parameters.values() if parameter.name != "self"]
    for parameter in parameters:
        assert parameter.annotation is not inspect.Parameter.empty, f"{name}: {parameter.name}"
    names = [parameter.name for parameter in parameters]
    assert "key" not in names or names[0] == "key", f"{name}: key comes first"
    if "key" in names or name.startswith(("jnst.api.", "jnst.nets.", "jnst.conv.", "jnst.tasks.")):
        for parameter in parameters:
            optional = parameter.default is not inspect.Parameter.empty
            alone = parameter.kind is inspect.Parameter.KEYWORD_ONLY
            assert not optional or alone or parameter.name in ALLOWED_POSITIONAL, f"{name}: {parameter.name}"


# Arguments with a default that read best without their name.
ALLOWED_POSITIONAL = {"layers", "padding"}


@each_module
def test_public_constants_and_aliases_are_documented(module):
    """By a string below the assignment, by a comment above it, or by being one of a documented table's lines."""
    loaded = importlib.import_module(module)
    text = Path(loaded.__file__).read_text()
    body = ast.parse(text).body
    for node, after in zip(body, [*body[1:], None], strict=True):
        targets = getattr(node, "targets", None) or [getattr(node, "target", None)]
        names = [target.id for target in targets if isinstance(target, ast.Name)]
        if not set(names) & (set(getattr(loaded, "__all__", ())) - {"__version__"}):
            continue
        below = isinstance(after, ast.Expr) and isinstance(getattr(after.value, "value", None), str)
        above = text.splitlines()[node.lineno - 2].startswith("#")
        table = isinstance(node.value, (ast.Dict, ast.Set, ast.Tuple))  # its lines say what each choice is
        assert below or above or table, f"{module}: {names}"


def test_only_the_edge_makes_random_keys():
    for path, module in zip(FILES, MODULES, strict=True):
        code = "\n".join(line for line in path.read_text().splitlines() if ">>>" not in line)
        if module not in ("jnst.api",) and not module.startswith("jnst.cli"):
            assert "random.key(" not in code, module
            assert "PRNGKey" not in code, module
