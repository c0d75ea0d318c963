"""The rules of the code's structure, read from its syntax trees.

Imports go one way; ONNX, torch and the random generators each have one owner; files stay small;
`import nvaudit` is light.
"""

import ast
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
PACKAGE = ROOT / "nvaudit"
FILES = sorted(PACKAGE.rglob("*.py"))
MAX_LINES = 600
MAX_FUNCTION_LINES = 70

BASE = {
    "_version",
    "arrays",
    "declare",
    "errors",
    "files",
    "keywords",
    "option_texts",
    "task_options",
    "options",
    "one_point",
    "technology_options",
    "profile_file",
    "rng",
    "sharing",
}
LOWER = BASE | {"spec", "device", "model", "data", "mapping", "stats", "report"}
# What each part may import besides itself. A new part must be entered here, with a thought about its place.
MAY_IMPORT = {
    "_version": set(),
    "arrays": set(),
    "errors": set(),
    "files": {"errors"},
    "profile_file": {"errors"},
    "rng": {"errors"},
    "sharing": set(),
    "declare": {"errors"},
    "keywords": {"declare", "errors", "files"},
    "option_texts": {"errors"},
    "task_options": {"declare", "option_texts"},
    "options": {"declare", "errors", "option_texts", "task_options"},
    "one_point": {"declare", "errors", "options"},
    "technology_options": {"declare", "errors", "options"},
    "spec": {"declare", "option_texts", "options", "task_options", "technology_options", "errors"},
    "stats": {"arrays", "errors"},
    "report": {"arrays", "declare", "errors", "files", "options", "spec", "stats", "task_options"},
    "device": BASE,
    "technology": BASE | {"device"},
    "model": BASE | {"device"},
    "data": BASE | {"device", "model"},  # model: ONNX's own test data are protobuf files
    "mapping": BASE | {"device", "model", "data"},
    "perturb": LOWER,
    "retrain": LOWER | {"perturb"},
    "remapping": LOWER | {"perturb"},
    "cost": LOWER | {"perturb", "coverage", "technology"},
    "write_verify": LOWER | {"perturb", "tensor_table", "session", "retrain"},
    "tensor_table": LOWER | {"perturb"},
    "coverage": LOWER | {"perturb"},
    "session": LOWER | {"perturb", "tensor_table"},
    "exploration": LOWER | {"perturb"},
    "jobs.candidates": LOWER,
    "jobs.attributing": LOWER | {"perturb", "session"},
    "jobs.describing": LOWER | {"perturb", "session", "cost", "technology", "jobs.costing"},
    "jobs.inspecting": LOWER | {"perturb", "coverage", "session", "tensor_table"},
    "jobs.planning": LOWER | {"perturb", "session"},
    "jobs.replaying": LOWER | {"perturb", "session"},
    "jobs.landscaping": LOWER | {"perturb", "session"},
    "jobs.verifying": LOWER | {"perturb", "coverage", "session", "write_verify"},
    "jobs.baselines": LOWER | {"perturb", "session", "jobs.candidates"},
    "jobs.measuring": LOWER | {"perturb", "session", "jobs.baselines"},
    "jobs.suggesting": LOWER | {"perturb", "session"},
    "jobs.rare": LOWER | {"perturb", "session"},
    "jobs.calibrating": LOWER | {"perturb", "session", "remapping", "jobs.measuring"},
    "jobs.on_crossbars": LOWER | {"perturb", "session"},
    "jobs.verbs": LOWER
    | {"perturb", "technology", "jobs.chip_calibrating", "jobs.deploying", "jobs.describing", "jobs.fitting"}
    | {"jobs.inspecting", "jobs.planning", "jobs.reassembling"},
    "jobs.mapped_manifest": LOWER | {"perturb", "jobs.on_crossbars"},
    "jobs.deploying": LOWER | {"perturb", "session", "jobs.on_crossbars", "jobs.mapped_manifest"},
    "jobs.reassembling": LOWER
    | {"perturb", "session", "jobs.on_crossbars", "jobs.mapped_manifest", "jobs.deploying"},
    "jobs.measured": LOWER | {"perturb", "session", "jobs.on_crossbars", "jobs.mapped_manifest"},
    "jobs.fitting": LOWER | {"perturb", "session", "jobs.auditing"},
    "jobs.chip_calibrating": LOWER
    | {"perturb", "remapping", "session", "jobs.calibrating", "jobs.measured", "jobs.replaying"},
    "jobs.auditing": LOWER
    | {
        "perturb",
        "coverage",
        "tensor_table",
        "session",
        "jobs.attributing",
        "jobs.baselines",
        "jobs.calibrating",
        "jobs.measured",
        "jobs.costing",
        "jobs.measuring",
        "jobs.rare",
        "jobs.suggesting",
        "jobs.landscaping",
    },
    "jobs.costing": LOWER | {"perturb", "session", "cost", "technology", "jobs.measured"},
    "jobs.comparing": LOWER | {"perturb", "session", "jobs.auditing", "jobs.candidates", "jobs.several"},
    "jobs.several": LOWER | {"perturb", "session", "jobs.auditing", "jobs.measuring"},
    "jobs.checking": LOWER | {"perturb", "session", "jobs.auditing", "jobs.several"},
    "jobs.sweeping": LOWER | {"perturb", "session", "jobs.auditing", "jobs.planning", "jobs.several"},
    "jobs.rooflining": LOWER | {"perturb", "session", "jobs.auditing", "jobs.costing", "jobs.several"},
    "jobs.exploring": LOWER
    | {"perturb", "coverage", "session", "exploration", "cost", "technology"}
    | {"jobs.costing", "jobs.measuring", "jobs.remapped_points"},
    "jobs.remapped_points": LOWER | {"perturb", "remapping", "jobs.remapping"},
    "jobs.remapping": LOWER | {"perturb", "session", "tensor_table", "jobs.auditing", "remapping"},
    "jobs.harden_job": LOWER | {"perturb", "session", "retrain"},
    "jobs.hardening": LOWER
    | {"perturb", "session", "retrain", "write_verify"}
    | {"jobs.auditing", "jobs.landscaping", "jobs.harden_job", "jobs.verifying"},
    "cli": LOWER
    | {"perturb", "coverage", "tensor_table", "session", "remapping", "retrain", "write_verify"}
    | {
        "jobs.auditing",
        "jobs.chip_calibrating",
        "jobs.deploying",
        "jobs.describing",
        "jobs.fitting",
        "jobs.inspecting",
        "jobs.planning",
        "jobs.reassembling",
    }
    | {"jobs.replaying", "jobs.landscaping", "jobs.candidates", "jobs.comparing", "jobs.rooflining"}
    | {
        "jobs.hardening",
        "jobs.remapping",
        "jobs.verifying",
        "jobs.checking",
        "jobs.exploring",
        "jobs.sweeping",
    }
    | {"jobs.sweeping", "jobs.costing", "cost", "technology", "exploration"},
    "testing": LOWER | {"jobs.auditing"},
    "pytest_plugin": {"report", "testing"},
    "__main__": {"cli"},
    "jobs": set(),
}


def part_of(path: Path) -> str:
    """The part of the package that a file belongs to: "model" for nvaudit/model/load.py.

    Each job is a part of its own.
    """
    return part_named(module_of(path).removeprefix("nvaudit."))


def part_named(name: str) -> str:
    """The part that a dotted name within the package belongs to."""
    first, *rest = name.split(".")
    return f"{first}.{rest[0]}" if first == "jobs" and rest else first


def imports(tree: ast.AST, package: str = "nvaudit") -> Iterator[tuple[str, ast.stmt | ast.expr]]:
    """Every imported dotted name, at any depth, relative imports made absolute."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            for alias in node.names:
                yield alias.name, node
        elif isinstance(node, ast.ImportFrom):
            base = node.module or ""
            if node.level:
                parents = package.split(".")[: len(package.split(".")) - node.level + 1]
                base = ".".join([*parents, base] if base else parents)
            for alias in node.names:
                yield f"{base}.{alias.name}", node
        elif isinstance(node, ast.Call) and ast.unparse(node.func).endswith("import_module"):
            for argument in node.args[:1]:
                yield str(getattr(argument, "value", "")), node


def wrong_way(tree: ast.AST, part: str, package: str = "nvaudit") -> list[str]:
    """The imports of the project by which a part breaks the direction."""
    allowed = MAY_IMPORT[part] | {part}
    found = []
    for name, node in imports(tree, package):
        head, _, rest = name.partition(".")
        if head == "nvaudit" and part_named(rest) not in allowed:
            found.append(f"line {node.lineno}: {name}")
    return found


def imports_of(tree: ast.AST, *packages: str) -> list[str]:
    """The imports of some foreign packages."""
    return [f"line {node.lineno}: {name}" for name, node in imports(tree) if name.split(".")[0] in packages]


def at_module_level(tree: ast.AST) -> Iterator[ast.stmt]:
    """The statements that run on import: all but bodies of functions and of `if TYPE_CHECKING`."""
    for node in ast.iter_child_nodes(tree):
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.Lambda):
            continue
        if isinstance(node, ast.If) and ast.unparse(node.test).endswith("TYPE_CHECKING"):
            continue
        if isinstance(node, ast.Import | ast.ImportFrom):
            yield node
        yield from at_module_level(node)


def eager_imports_of(tree: ast.AST, *packages: str) -> list[str]:
    """The imports of some foreign packages that run as soon as the file is imported."""
    return [found for node in at_module_level(tree) for found in imports_of(node, *packages)]


def module_of(path: Path) -> str:
    """The dotted name of a file: "nvaudit.model" for nvaudit/model/__init__.py."""
    return ".".join(path.relative_to(ROOT).with_suffix("").parts).removesuffix(".__init__")


def loads_torch(trees: dict[str, ast.Module], packages: set[str]) -> set[str]:
    """The modules whose import loads torch: they import it, or a module that does, as soon as they run."""
    eager = {
        name: {
            found
            for node in at_module_level(tree)
            for found, _ in imports(node, name if name in packages else name.rpartition(".")[0])
        }
        for name, tree in trees.items()
    }
    heavy = {"torch"}
    while True:  # a dotted name loads the packages around it too
        reached = {
            name
            for name, found in eager.items()
            if any(part == module or part.startswith(f"{module}.") for part in found for module in heavy)
        }
        if reached <= heavy:
            return heavy - {"torch"}
        heavy |= reached


def dotted(node: ast.expr, names: dict[str, str]) -> str:
    """The full name of an attribute chain, its first name looked up among the imports."""
    chain = []
    while isinstance(node, ast.Attribute):
        chain.append(node.attr)
        node = node.value
    if not isinstance(node, ast.Name):
        return ""
    return ".".join([names.get(node.id, node.id), *reversed(chain)])


def made_generators(tree: ast.AST) -> list[str]:
    """The calls that make a generator, or draw from a global one."""
    names: dict[str, str] = {}
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            names.update((a.asname, a.name) if a.asname else (a.name.split(".")[0],) * 2 for a in node.names)
        elif isinstance(node, ast.ImportFrom) and not node.level:
            names.update((a.asname or a.name, f"{node.module}.{a.name}") for a in node.names)
    calls = [(node, dotted(node.func, names)) for node in ast.walk(tree) if isinstance(node, ast.Call)]
    found = [f"line {node.lineno}: {name}" for node, name in calls if name.startswith("numpy.random.")]
    return found + imports_of(tree, "random")


def parse(path: Path) -> ast.Module:
    return ast.parse(path.read_text(encoding="utf-8"), filename=str(path))


def offenders(check: Callable[[Path], list[str]], files: list[Path]) -> dict[str, list[str]]:
    """What a check finds, by file; only the files where it finds something."""
    assert len(files) > 5, f"the package is not at {PACKAGE}"
    found = {path.relative_to(ROOT).as_posix(): check(path) for path in files}
    return {name: problems for name, problems in found.items() if problems}


def test_imports_go_one_way():
    """A file imports only parts of the project that stand below its own."""
    inner = [path for path in FILES if path != PACKAGE / "__init__.py"]  # that one is the public face
    new_parts = {part_of(path) for path in inner} - set(MAY_IMPORT)
    assert new_parts == set(), "new parts of the package: give them a place in MAY_IMPORT"
    packages = {path: ".".join(path.relative_to(ROOT).parent.parts) for path in inner}
    assert offenders(lambda path: wrong_way(parse(path), part_of(path), packages[path]), inner) == {}


def circles(needs: dict[str, set[str]]) -> list[tuple[str, str]]:
    """The pairs of modules of which one imports the other and is needed by it, directly or not."""
    reached: dict[str, set[str]] = {}
    for name in needs:
        found, pending = set(), list(needs[name])
        while pending:
            other = pending.pop()
            if other not in found:
                found.add(other)
                pending += needs.get(other, ())
        reached[name] = found
    return sorted((name, other) for name in needs for other in needs[name] if name in reached.get(other, ()))


def inner_imports(path: Path, known: set[str]) -> set[str]:
    """The files of the package that a file imports, inside functions and for types too."""
    package = ".".join(path.relative_to(ROOT).parent.parts)
    found = set()
    for name, _ in imports(parse(path), package):
        if name.startswith("nvaudit"):
            found.add(name if name in known else name.rpartition(".")[0])
    return found - {module_of(path)}


def test_no_file_needs_itself():
    """No two files import each other, whatever lies between them: each can be read after what it needs."""
    known = {module_of(path) for path in FILES}
    assert circles({module_of(path): inner_imports(path, known) for path in FILES}) == []


def test_a_circle_is_seen():
    """Over several files, too; a chain is none."""
    assert circles({"a": {"b"}, "b": {"c"}, "c": {"a"}, "d": {"a"}}) == [("a", "b"), ("b", "c"), ("c", "a")]
    assert circles({"a": {"b"}, "b": {"c"}, "c": set()}) == []


def test_onnx_is_known_to_the_model_package_only():
    """onnx and onnx_ir are imported only under nvaudit/model/."""
    others = [path for path in FILES if part_of(path) != "model"]
    assert offenders(lambda path: imports_of(parse(path), "onnx", "onnx_ir"), others) == {}


def test_torch_is_known_to_the_retrain_package_only():
    """torch is imported only under nvaudit/retrain/."""
    others = [path for path in FILES if part_of(path) != "retrain"]
    assert offenders(lambda path: imports_of(parse(path), "torch"), others) == {}


def test_torch_is_imported_lazily():
    """Importing a file outside nvaudit/retrain/ never imports torch, by what it imports either."""
    trees = {module_of(path): parse(path) for path in FILES}
    packages = {module_of(path) for path in FILES if path.name == "__init__.py"}
    heavy = loads_torch(trees, packages)
    assert {name for name in heavy if not name.startswith("nvaudit.retrain.")} == set()


def test_generators_are_made_by_rng_only():
    """No file but rng.py makes a random generator or draws from a global one."""
    others = [path for path in FILES if part_of(path) != "rng"]
    assert offenders(lambda path: made_generators(parse(path)), others) == {}


def test_a_class_has_its_name_alone():
    """No two classes have one name, and no alias has the name of a class: a name means one thing."""
    classes = {
        path: [node.name for node in ast.walk(parse(path)) if isinstance(node, ast.ClassDef)]
        for path in FILES
    }
    places: dict[str, list[str]] = {name: [] for names in classes.values() for name in names}
    for path, names in classes.items():
        for name in [*names, *aliases(parse(path))]:
            places.get(name, []).append(module_of(path))
    assert {name: where for name, where in places.items() if len(where) > 1} == {}


def aliases(tree: ast.Module) -> list[str]:
    """Names that a file gives to types: assigned at its top, and written as a class is."""
    targets = [
        target
        for node in tree.body
        if isinstance(node, ast.Assign | ast.AnnAssign)
        for target in (node.targets if isinstance(node, ast.Assign) else [node.target])
    ]
    names = [target.id for target in targets if isinstance(target, ast.Name)]
    return [name for name in names if name[0].isupper() and not name.isupper()]


def test_files_stay_small():
    """A file is short enough to be read in one sitting."""
    lengths = {module_of(path): len(path.read_text(encoding="utf-8").splitlines()) for path in FILES}
    assert {name: length for name, length in lengths.items() if length >= MAX_LINES} == {}


def test_functions_stay_short():
    """A function's code fits on a screen; its docstring and comments are not counted."""
    long = {}
    for path in FILES:
        lines = path.read_text(encoding="utf-8").splitlines()
        for node in ast.walk(parse(path)):
            if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
                count = len(code_lines(node, lines))
                if count > MAX_FUNCTION_LINES:
                    long[f"{path.name}: {node.name}"] = count
    assert long == {}


def code_lines(function: ast.AST, lines: list[str]) -> set[int]:
    """The numbers of the lines of a function that are neither blank, comment nor docstring."""
    words: set[int] = set()
    for node in ast.walk(function):
        if isinstance(node, ast.Expr) and isinstance(node.value, ast.Constant):
            words |= set(range(node.lineno, node.end_lineno + 1))
    numbers = range(function.lineno, function.end_lineno + 1)
    return {i for i in numbers if i not in words and lines[i - 1].strip() and lines[i - 1].strip()[0] != "#"}


def test_lines_of_code_are_counted():
    """A docstring, a comment and a blank line are no lines of code."""
    code = 'def f():\n    """Say.\n\n    More.\n    """\n\n    # why\n    return (\n        1)\n'
    assert code_lines(ast.parse(code).body[0], code.splitlines()) == {1, 8, 9}


def test_import_is_light():
    """`import nvaudit` loads neither torch nor onnx nor onnxruntime."""
    code = (
        "import sys, nvaudit\n"
        "heavy = {'torch', 'onnx', 'onnx_ir', 'onnxruntime', 'plotly', 'scipy'} & set(sys.modules)\n"
        "sys.exit(f'import nvaudit loaded {sorted(heavy)}' if heavy else 0)"
    )
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr


@pytest.mark.parametrize(
    ("part", "package", "code"),
    [
        ("device", "nvaudit.device", "from nvaudit.model.load import load_model"),
        ("device", "nvaudit.device", "import nvaudit.cli"),
        ("device", "nvaudit.device", "from ..mapping import quantize"),
        ("device", "nvaudit.device", "from .. import mapping"),
        ("model", "nvaudit.model", "def f():\n    from nvaudit import data"),
        ("report", "nvaudit.report", "from nvaudit.device import load_profile"),
        ("jobs.auditing", "nvaudit.jobs", "from nvaudit import cli"),
        ("jobs.auditing", "nvaudit.jobs", "from nvaudit.jobs.comparing import compare"),
        ("jobs.auditing", "nvaudit.jobs", "from nvaudit.jobs import comparing"),
        ("cli", "nvaudit.cli", "from nvaudit import audit_everything"),
    ],
)
def test_wrong_import_is_seen(part, package, code):
    """The check sees absolute, relative and local imports that go the wrong way."""
    assert len(wrong_way(ast.parse(code), part, package)) == 1


@pytest.mark.parametrize(
    ("part", "package", "code"),
    [
        ("model", "nvaudit.model", "from .load import load_model\nfrom . import uses"),
        (
            "model",
            "nvaudit.model",
            "from ..errors import ModelError\nfrom nvaudit._version import __version__",
        ),
        (
            "cli",
            "nvaudit.cli",
            "import numpy\nfrom nvaudit.jobs import auditing\nfrom nvaudit.report import x",
        ),
    ],
)
def test_right_import_is_let_through(part, package, code):
    """The check lets pass what the order allows."""
    assert wrong_way(ast.parse(code), part, package) == []


@pytest.mark.parametrize(
    "code",
    [
        "import torch",
        "import torch.nn as nn",
        "from torch import nn",
        "try:\n    import torch\nexcept ImportError:\n    torch = None",
        "class A:\n    import torch",
    ],
)
def test_eager_torch_is_seen(code):
    """The check sees each way of importing torch on import."""
    assert len(eager_imports_of(ast.parse(code), "torch")) == 1


@pytest.mark.parametrize(
    "code",
    [
        "def f():\n    import torch",
        "if TYPE_CHECKING:\n    import torch",
        "import torchlike",
    ],
)
def test_lazy_torch_is_let_through(code):
    """An import inside a function, or for types only, does not run on import."""
    assert eager_imports_of(ast.parse(code), "torch") == []


@pytest.mark.parametrize(
    ("code", "found"),
    [
        ("from nvaudit.retrain.executor import build_executor", True),
        ("from nvaudit.retrain import executor", True),
        ("from .retrain.light import executor", True),
        ("import nvaudit.retrain.executor as e", True),
        ("def f():\n    from nvaudit.retrain.executor import build_executor", False),
        ("from nvaudit.retrain.spec import TrainSpec", False),
        ("import nvaudit.retrain", False),
    ],
)
def test_torch_behind_an_import_is_seen(code, found):
    """The check follows imports, also through a module that imports one that loads torch."""
    trees = {
        "nvaudit": ast.parse(""),
        "nvaudit.retrain": ast.parse('"""Light."""'),
        "nvaudit.retrain.executor": ast.parse("import torch"),
        "nvaudit.retrain.light": ast.parse("from . import executor"),
        "nvaudit.retrain.spec": ast.parse("def f():\n    import torch"),
        "nvaudit.hardening": ast.parse(code),
    }
    heavy = loads_torch(trees, {"nvaudit", "nvaudit.retrain"})
    assert ("nvaudit.hardening" in heavy) == found
    assert {"nvaudit.retrain.executor", "nvaudit.retrain.light"} <= heavy


@pytest.mark.parametrize(
    "code",
    [
        "import numpy as np\nnp.random.default_rng(0)",
        "import numpy\nnumpy.random.normal()",
        "import numpy.random as npr\nnpr.seed(0)",
        "from numpy import random\nrandom.standard_normal(3)",
        "from numpy.random import SFC64 as bits\nbits(1)",
        "import numpy as np\nnp.random.Generator(np.random)",
        "import random",
        "from random import shuffle",
    ],
)
def test_made_generator_is_seen(code):
    """The check sees each way of making or using a generator of one's own."""
    assert len(made_generators(ast.parse(code))) == 1


def test_given_generator_is_let_through():
    """Naming the type and drawing from a generator that was passed in are fine."""
    code = "import numpy as np\ndef f(rng: np.random.Generator):\n    return rng.normal()"
    assert made_generators(ast.parse(code)) == []
