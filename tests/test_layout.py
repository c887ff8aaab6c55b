"""The house as DESIGN lays it out: who imports whom, what an import costs, what it leaves alone."""

from __future__ import annotations

import ast
import json
import re
import subprocess
import sys
import tomllib
import zipfile
from pathlib import Path

import pytest

import jaxpref

PACKAGE = Path(jaxpref.__file__).parent
ORDER = (
    "_checks",
    "_numerics",
    "links",
    "models",
    "sensitivity",
    "regions",
    "integrate",
    "data",
    "fit",
    "audit",
    "rewards",
    "llm",
    "report",
    "cli",
    "__main__",
)
MODULES = sorted(PACKAGE.rglob("*.py"))
HEAVY = ("flax", "optax", "transformers", "matplotlib", "plotly", "pandas", "polars")


def dotted(path: Path) -> list[str]:
    """Return the module's parts below jaxpref: ["data", "graph"]."""
    parts = list(path.relative_to(PACKAGE).with_suffix("").parts)
    return parts[:-1] if parts[-1] == "__init__" else parts


def imported_rooms(path: Path) -> set[str]:
    """Return the top-level modules of jaxpref that a file imports, anywhere in it."""
    package = list(path.relative_to(PACKAGE).parent.parts)
    rooms = set()
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.ImportFrom):
            rooms |= rooms_of_import(node, package)
        elif isinstance(node, ast.Import):
            names = [alias.name.split(".") for alias in node.names]
            rooms |= {name[1] for name in names if name[0] == "jaxpref" and len(name) > 1}
    return rooms


def rooms_of_import(node: ast.ImportFrom, package: list[str]) -> set[str]:
    module = node.module.split(".") if node.module else []
    if node.level == 0:
        if not module or module[0] != "jaxpref":
            return set()
        target = module[1:]
    else:
        target = package[: len(package) - (node.level - 1)] + module
    if target:
        return {target[0]}
    return {alias.name for alias in node.names if alias.name in ORDER}


@pytest.mark.parametrize("path", MODULES, ids=lambda path: "/".join(path.parts[-2:]))
def test_a_module_imports_only_from_those_above_it(path):
    own = dotted(path)
    if not own:  # the package's own __init__ may name everything
        return
    assert own[0] in ORDER, f"{own[0]} has no place in the order of the house"
    place = ORDER.index(own[0])
    below = {room for room in imported_rooms(path) if ORDER.index(room) > place}
    assert not below, f"{path.name} imports {below}, which stand below {own[0]}"


def test_the_reader_of_imports_sees_them_all():
    assert {"_checks", "data", "links"} <= imported_rooms(PACKAGE / "fit" / "pairwise.py")
    relative = ast.parse("from ..links import Link").body[0]
    assert isinstance(relative, ast.ImportFrom)
    assert rooms_of_import(relative, ["fit"]) == {"links"}
    absolute = ast.parse("from jaxpref.cli.app import run").body[0]
    assert isinstance(absolute, ast.ImportFrom)
    assert rooms_of_import(absolute, []) == {"cli"}


def run_python(code: str) -> str:
    command = [sys.executable, "-c", code]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    return done.stdout


def test_importing_everything_but_report_loads_nothing_heavy():
    rooms = [room for room in ORDER if room not in ("llm", "__main__", "cli")]
    names = [f"jaxpref.{room}" for room in rooms if has(room)]
    code = (
        f"import importlib, json, sys, jaxpref\nfor name in {names}: importlib.import_module(name)"
    )
    loaded = json.loads(run_python(f"{code}\nprint(json.dumps(sorted(sys.modules)))"))
    assert "jaxpref.sensitivity" in loaded
    assert [name for name in loaded if name in HEAVY] == []


def test_language_models_are_imported_when_asked_for():
    pytest.importorskip("flax", reason="the extra llm is not installed")
    code = (
        "import sys, jaxpref\nbefore = 'flax' in sys.modules\n"
        "print(before, callable(jaxpref.llm.load_model), 'transformers' in sys.modules)"
    )
    assert run_python(code).split() == ["False", "True", "False"]
    with pytest.raises(AttributeError, match="has no attribute 'nothing'"):
        _ = jaxpref.nothing


def has(room: str) -> bool:
    return (PACKAGE / room).is_dir() or (PACKAGE / f"{room}.py").is_file()


def test_import_costs_less_than_a_second_and_a_half_beyond_jax():
    # Processor time: what the import costs, not what else the machine is doing meanwhile.
    code = (
        "import time\nimport jax\nstart = time.process_time()\n"
        "import jaxpref\nprint(time.process_time() - start)"
    )
    best = min(float(run_python(code)) for _ in range(3))
    assert best < 1.5, f"import jaxpref took {best:.2f} s beyond import jax"


def test_importing_changes_no_setting_of_jax():
    code = (
        "import jax\nbefore = dict(jax.config.values)\nimport jaxpref, jaxpref.cli.app\n"
        "print(before == dict(jax.config.values))"
    )
    assert run_python(code).strip() == "True"


def code_of(path: Path) -> str:
    return path.read_text(encoding="utf-8")


@pytest.mark.parametrize("path", MODULES, ids=lambda path: "/".join(path.parts[-2:]))
def test_only_the_command_line_touches_jax_config(path):
    touches = re.search(r"\bjax\.config\b|from jax import config", code_of(path))
    if dotted(path)[:1] not in (["cli"], ["__main__"]):
        assert touches is None


def test_the_command_line_does_touch_jax_config():
    assert any("jax.config.update" in code_of(path) for path in PACKAGE.glob("cli/*.py"))


@pytest.mark.parametrize("path", MODULES, ids=lambda path: "/".join(path.parts[-2:]))
def test_no_absolute_machine_path_is_named(path):
    found = re.findall(
        r"[\"'(\s](/(?:home|work|root|tmp|Users|mnt|data|opt|usr)/\S*)", code_of(path)
    )
    assert found == []


# What is installed ----------------------------------------------------------------------------

ROOT = PACKAGE.parent
NAMED_OTHERWISE = {"orbax": "orbax-checkpoint"}
EXTRAS = {"llm": ("llm",), "report": ("report",), "data": ("data",)}
"""What a room may import beyond the dependencies of all."""


def project() -> dict:
    path = ROOT / "pyproject.toml"
    if not path.is_file():
        pytest.skip("pyproject.toml is not at hand: not a clone")
    return tomllib.loads(path.read_text(encoding="utf-8"))["project"]


def distributions(requirements: list[str]) -> set[str]:
    return {re.split(r"[^\w-]", line)[0] for line in requirements}


def imported_packages(path: Path) -> set[str]:
    """Return the packages of others that a file imports, anywhere in it."""
    found = set()
    for node in ast.walk(ast.parse(code_of(path))):
        if isinstance(node, ast.ImportFrom) and node.level == 0 and node.module:
            found.add(node.module.split(".")[0])
        elif isinstance(node, ast.Import):
            found |= {alias.name.split(".")[0] for alias in node.names}
    return found - set(sys.stdlib_module_names) - {"jaxpref"}


@pytest.mark.parametrize("path", MODULES, ids=lambda path: "/".join(path.parts[-2:]))
def test_what_is_imported_is_a_dependency_or_in_the_rooms_extra(path):
    declared = project()
    allowed = distributions(declared["dependencies"])
    for extra in EXTRAS.get((dotted(path) or [""])[0], ()):
        allowed |= distributions(declared["optional-dependencies"][extra])
    needed = {NAMED_OTHERWISE.get(name, name) for name in imported_packages(path)}
    assert needed <= allowed


def test_nothing_is_installed_that_nothing_imports():
    declared = project()
    used = set().union(*map(imported_packages, MODULES))
    used = {NAMED_OTHERWISE.get(name, name) for name in used}
    extras = [declared["optional-dependencies"][name] for name in ("llm", "report", "data")]
    asked = distributions(
        [*declared["dependencies"], *(line for lines in extras for line in lines)]
    )
    # JAX's own half, what transformers needs for chat templates, and what narwhals reads.
    assert asked - used == {"jaxlib", "jinja2", "pandas"}


def test_the_wheel_holds_the_package_and_its_data(tmp_path):
    builder = pytest.importorskip("hatchling.builders.wheel", reason="hatchling is not installed")
    project()
    (built,) = builder.WheelBuilder(str(ROOT)).build(directory=str(tmp_path), versions=["standard"])
    with zipfile.ZipFile(built) as wheel:
        names = {name for name in wheel.namelist() if name.startswith("jaxpref/")}
    data = {"CHANGELOG.md", "py.typed", "llm/templates.json", "data/bundled/citations.json"}
    data |= {"data/bundled/example1.csv", "report/html/script.js", "report/html/style.css"}
    modules = {path.relative_to(PACKAGE).as_posix() for path in MODULES}
    assert {f"jaxpref/{name}" for name in data | modules} <= names
    assert not any("__pycache__" in name for name in names)


def test_the_package_has_one_version():
    assert re.fullmatch(r"\d+\.\d+\.\d+\S*", jaxpref.__version__)
    assert project()["version"] == jaxpref.__version__
    citation = (ROOT / "CITATION.cff").read_text(encoding="utf-8")
    assert f"\nversion: {jaxpref.__version__}\n" in citation
    assert f"## {jaxpref.__version__}" in (PACKAGE / "CHANGELOG.md").read_text(encoding="utf-8")
