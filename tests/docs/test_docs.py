"""What the documentation says is what happens: commands, exit codes, outputs, snippets, tables and links."""

import json
import os
import re
import shlex
import shutil
import subprocess
import sys
import tomllib
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType

import click
import pytest

from nvaudit.cli.commands import cli
from nvaudit.data.preprocess import Preprocess
from nvaudit.device import load_profile, operating_point, override_profile, parse_profile, profile_names
from nvaudit.perturb.moments import device_facts
from nvaudit.report.result import AuditReport
from nvaudit.stats.binomial import trials_for_bound

ROOT = Path(__file__).parents[2]
PAGES = (ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md")))
NAMES = [str(page.relative_to(ROOT)) for page in PAGES]
OTHERS = (
    *(ROOT / name for name in ("CONTRIBUTING.md", "CHANGELOG.md")),
    *(ROOT / folder / "README.md" for folder in ("benchmarks", "devices", "examples")),
)
ALL_NAMES = [str(page.relative_to(ROOT)) for page in (*PAGES, *OTHERS)]

NEEDED = {"notebook.md": ("pandas", "matplotlib", "plotly")}
"""Extras without which what a page shows cannot be run."""

PYTEST_OPTIONS = {"--nvaudit-report", "--junit-xml"}

_BLOCK = re.compile(
    r"(?:^`(?P<file>[\w.]+)`:\n\n)?^```(?P<kind>[^\n]*)\n(?P<body>.*?)^```$", re.MULTILINE | re.DOTALL
)


@dataclass(frozen=True)
class Block:
    """A fenced block; ``file`` is the name that the line above gives it."""

    kind: str
    body: str
    file: str | None


@dataclass(frozen=True)
class Step:
    """A command, the exit code that is stated, and the output lines that are shown."""

    arguments: list[str]
    code: int
    shown: list[str]


def blocks(page: Path) -> list[Block]:
    found = _BLOCK.finditer(page.read_text(encoding="utf-8"))
    return [Block(match["kind"].strip(), match["body"], match["file"]) for match in found]


def steps(block: Block) -> Iterator[Step]:
    """The nvaudit commands of a block; what follows a pipe or a redirection is left out."""
    prompt = "$ " if block.kind == "console" else ""
    lines = block.body.replace("\\\n", " ").splitlines()
    starts = [i for i, line in enumerate(lines) if line.startswith(f"{prompt}nvaudit ")]
    for start, stop in zip(starts, [*starts[1:], len(lines)], strict=True):
        line = lines[start].removeprefix(prompt)
        stated = re.search(r"#.*\bexit (\d+)", line)
        words = shlex.split(line, comments=True)[1:]
        ends = [i for i, word in enumerate(words) if word in ("|", ">", "2>", "&&", ";")]
        shown = lines[start + 1 : stop] if prompt else []
        yield Step(words[: min(ends, default=len(words))], int(stated[1]) if stated else 0, shown)


ALIASES = {"--workers": "-j", "--trials": "-n"}


def instead(arguments: list[str], *few: str) -> list[str]:
    """The command with these options, or switches, in place of those that it has: none is taken twice."""
    names = {word for word in few if word.startswith("-")}
    kept: list[str] = []
    words = iter(arguments)
    for word in words:
        if ALIASES.get(word, word) not in names:
            kept.append(word)
        elif word != "--no-roughness":
            next(words)  # its value
    return [*kept, *few]


def quickly(arguments: list[str]) -> list[str]:
    """The command on fewer chips and images, in this process; a gate still gets enough chips to pass."""
    if arguments[0] == "landscape":
        return instead(arguments, "--grid", "5", "--pairs", "2", "--images", "32", "-j", "0")
    if arguments[0] == "compare" and not all(word.endswith(".json") for word in arguments[1:3]):
        few = ["-n", "400" if "0.9" in arguments else "10"]
        return instead(arguments, *few, "--limit", "100", "-j", "0", "--no-roughness")
    if arguments[0] == "check":
        return instead(arguments, "-n", "400", "--limit", "50", "-j", "0")
    if arguments[0] == "roofline":
        return instead(arguments, "-n", "3", "--limit", "50", "-j", "0")
    if arguments[0] == "explore":
        gate = ["-n", "320", "--min-kpp", "0.3"] if "--min-kpp" in arguments else ["-n", "8"]
        return instead(arguments, *gate, "--limit", "40", "-j", "0", "--crossbar", "64x64", "--adc-bits", "5")
    if arguments[0] == "verify-plan":
        few = ["-n", "3", "--limit", "50", "--sensitivity-images", "32", "-j", "0"]
        return instead(arguments, *few, "--shares", "0.1,1")
    if arguments[0] == "harden":
        few = ["-n", "20", "-j", "0"]
        training = ["--epochs", "1", "--audit-images", "40", "--no-roughness"]
        return instead(arguments, *few, *([] if "remap" in arguments else training))
    if arguments[0] != "audit":
        return arguments
    if "--chip" in arguments:
        arguments = instead(arguments, "--trials", "10")
    few = ["-n", "400" if "--min-kpp" in arguments else "10"]
    given = "--trials" in arguments or "-n" in arguments
    return instead(arguments, *([] if given else few), "--limit", "200", "-j", "0", "--no-roughness")


def run_script(script: str, folder: Path) -> list[str]:
    """Run a script as a build server does, with the commands of this environment; give what is wrong."""
    path = os.pathsep.join([str(Path(sys.executable).parent), os.environ["PATH"]])
    words = ["bash", "--noprofile", "--norc", "-eo", "pipefail"]
    done = subprocess.run(
        words,
        input=script,
        cwd=folder,
        env={**os.environ, "PATH": path},
        capture_output=True,
        text=True,
        check=False,
    )
    return [f"{script}: exit {done.returncode}\n{done.stdout}{done.stderr}"] if done.returncode else []


def is_shown(line: str, output: str) -> bool:
    """Whether a line of the output agrees; ``…`` stands for anything, and blanks count once."""
    parts = [re.escape(" ".join(part.split())) for part in line.split("…")]
    squeezed = "\n".join(" ".join(row.split()) for row in output.splitlines())
    return re.search("^" + ".*".join(parts) + "$", squeezed, re.MULTILINE) is not None


def check_json(block: Block) -> None:
    """A profile is valid, anything else is a preprocessing file."""
    if "schema_version" in json.loads(block.body):
        parse_profile(block.body, "the snippet")
    else:
        Preprocess.model_validate_json(block.body)


def table(page: str, title: str) -> list[list[str]]:
    """Rows of the table behind ``<!-- table: TITLE``, without its head."""
    text = (ROOT / page).read_text(encoding="utf-8").split(f"<!-- table: {title}")[1]
    rows = re.findall(r"(?:^\|.*\|\n)+", text, re.MULTILINE)[0].splitlines()[2:]
    return [[cell.strip().replace("`", "") for cell in row.strip("|").split("|")] for row in rows]


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """The folder that the documentation assumes: model.onnx, model.npz and d.npz, and other.onnx."""
    for name in ("model.onnx", "model.npz", "d.npz", "other.onnx"):
        shutil.copy(ROOT / "examples" / f"digits_cnn{Path(name).suffix}", tmp_path / name)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", list(sys.path))  # a metric of the user's adds the folder
    monkeypatch.delitem(sys.modules, "mymetric", raising=False)
    yield tmp_path
    sys.modules.pop("mymetric", None)


@pytest.mark.parametrize("page", PAGES, ids=NAMES)
def test_everything_shown_works(
    page: Path, folder: Path, command: Callable[..., object], monkeypatch: pytest.MonkeyPatch
):
    """Commands end with the stated exit code (0 by default), what they print is shown, snippets run."""
    for extra in NEEDED.get(page.name, ()):
        pytest.importorskip(extra, reason=f"docs/{page.name} uses {extra}; pip install 'nvaudit[notebook]'")
    main = ModuleType("__main__")  # the snippets of a page are one after the other, as in a notebook
    monkeypatch.setitem(sys.modules, "__main__", main)
    wrong = []
    for block in blocks(page):
        if block.file is not None:
            (folder / block.file).write_text(block.body, encoding="utf-8")
        if block.kind == "json":
            check_json(block)
        elif block.kind == "python":
            exec(compile(block.body, f"{page.name}: python snippet", "exec"), main.__dict__)
        elif block.kind == "bash":
            wrong += run_script(block.body, folder)
        for step in steps(block) if block.kind in ("sh", "console") else ():
            ran = command(*quickly(step.arguments))
            text = " ".join(step.arguments)
            if ran.code != step.code:
                wrong.append(f"nvaudit {text}: exit {ran.code}, stated {step.code}\n{ran.err}")
            if step.arguments[0] != "audit":  # scores may differ in the last digit between processors
                output = ran.out + ran.err
                wrong += [f"nvaudit {text}: not printed: {x}" for x in step.shown if not is_shown(x, output)]
    assert not wrong, "\n".join(wrong)


@pytest.mark.parametrize("page", PAGES, ids=NAMES)
def test_commands_are_found(page: Path):
    """No command hides in a block that is not run."""
    for block in blocks(page):
        if block.kind not in ("sh", "console", "text", "bash"):
            assert not re.search(r"^(\$ )?nvaudit ", block.body, re.MULTILINE), block.body


def test_wrong_statements_are_seen():
    """The check of shown output can fail, and reads exit codes and pipes."""
    assert is_shown("a  b … d", "x\na b c d\n")
    assert not is_shown("a b e", "x\na b c d\n")
    block = Block("sh", "nvaudit audit m.onnx --min-kpp 0.9 | jq .  # exit 1\n", None)
    assert list(steps(block)) == [Step(["audit", "m.onnx", "--min-kpp", "0.9"], 1, [])]


def _anchors(page: Path) -> set[str]:
    """Anchors of a page's headings, as GitHub makes them."""
    text = re.sub(r"^```.*?^```$", "", page.read_text(encoding="utf-8"), flags=re.MULTILINE | re.DOTALL)
    titles = re.findall(r"^#+ (.+)$", text, re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", title.lower()).replace(" ", "-") for title in titles}


@pytest.mark.parametrize("page", [*PAGES, *OTHERS], ids=ALL_NAMES)
def test_links_lead_somewhere(page: Path):
    """Every relative link names a file that exists, and every anchor a heading in it."""
    for target in re.findall(r"\]\(([^)\s]+)\)", page.read_text(encoding="utf-8")):
        if re.match(r"[a-z]+:", target):
            continue
        path, _, anchor = target.partition("#")
        there = (page.parent / path).resolve() if path else page
        assert there.exists(), f"{target}: no such file"
        assert there.is_relative_to(ROOT), f"{target}: outside the repository"
        if anchor:
            assert anchor in _anchors(there), f"{target}: no such heading"


def test_every_page_is_in_the_index():
    """The index links every page."""
    index = (ROOT / "docs" / "README.md").read_text(encoding="utf-8")
    for page in PAGES[1:]:
        assert page.name == "README.md" or f"({page.name})" in index


def _child(group: click.Group, name: str) -> click.Command:
    child = group.get_command(click.Context(group), name)
    assert child is not None
    return child


def _options(group: click.Command) -> set[str]:
    own = {option for param in group.params for option in (*param.opts, *param.secondary_opts)}
    if not isinstance(group, click.Group):
        return own
    return own.union(*(_options(_child(group, name)) for name in group.list_commands(click.Context(group))))


@pytest.mark.parametrize("page", PAGES, ids=NAMES)
def test_options_exist(page: Path):
    """Every option that the text names is one of the command line."""
    named = set(re.findall(r"`[^`\n]*?(?<![\w-])(--[a-z][a-z-]*)", page.read_text(encoding="utf-8")))
    assert named <= _options(cli) | {"--help"} | PYTEST_OPTIONS


def _inline_commands(page: Path) -> list[list[str]]:
    """The words of every command within the text, such as ``nvaudit audit … --plan``."""
    text = re.sub(r"^```.*?^```$", "", page.read_text(encoding="utf-8"), flags=re.MULTILINE | re.DOTALL)
    return [found.split() for found in re.findall(r"`nvaudit ([^`]+)`", text)]


def _unknown(words: list[str]) -> list[str]:
    """What in a command does not exist: the command itself, or options of it."""
    command: click.Command = cli
    while isinstance(command, click.Group) and words and re.fullmatch(r"[a-z][a-z-]*", words[0]):
        child = command.get_command(click.Context(command), words[0])
        if child is None:
            return words[:1]
        command, words = child, words[1:]
    known = {option for param in command.params for option in (*param.opts, *param.secondary_opts)} | {
        "--help"
    }
    return [word for word in words if word.startswith("-") and word != "-" and word not in known]


@pytest.mark.parametrize("page", [*PAGES, *OTHERS], ids=ALL_NAMES)
def test_commands_in_the_text_exist(page: Path):
    """A command within a sentence or a table exists, and has the options that are named with it."""
    for words in _inline_commands(page):
        assert _unknown(words) == [], " ".join(words)


def test_unknown_commands_in_the_text_are_seen():
    """The check finds a wrong command, a wrong subcommand, and an option of another command."""
    assert _unknown(["adit", "MODEL.onnx"]) == ["adit"]
    assert _unknown(["devices", "lst"]) == ["lst"]
    assert _unknown(["inspect", "MODEL.onnx", "--min-kpp", "0.9", "--json"]) == ["--min-kpp"]


@pytest.mark.parametrize("page", [*PAGES, *OTHERS], ids=ALL_NAMES)
def test_extras_and_targets_exist(page: Path):
    """`pip install 'nvaudit[extra]'` names an extra of the package, and `make target` one of the Makefile."""
    text = page.read_text(encoding="utf-8")
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    extras = {name for found in re.findall(r"(?:nvaudit|'\.)\[([\w,]+)\]", text) for name in found.split(",")}
    assert extras <= set(project["optional-dependencies"])
    targets = set(re.findall(r"^([a-z-]+):", (ROOT / "Makefile").read_text(encoding="utf-8"), re.MULTILINE))
    assert set(re.findall(r"(?:`|^|\$ )make ([a-z-]+)", text, re.MULTILINE)) <= targets


def test_sigma_table_is_right():
    """Weight sigma per unit of sigma is what `devices show` works out, to the digits shown."""
    rows = table("docs/devices.md", "weight sigma per unit of sigma")
    assert len(rows) == 6
    for shape, *columns in rows:
        bits, cell_bits = map(int, shape.split(","))
        device = override_profile(load_profile("rram"), weight_bits=bits, cell_bits=cell_bits)
        values = []
        for unit, shown in zip(("level", "full_scale"), columns, strict=False):
            value = device_facts(operating_point(device, 0.02, unit)).weight.rms / 0.02
            assert float(shown) == pytest.approx(value, rel=2e-3)
            values.append(value)
        assert int(columns[2]) == pytest.approx(values[1] / values[0], rel=1e-6)
    assert device_facts(operating_point(device, 0.02, "weight_max")).weight.rms == pytest.approx(0.02)


def test_profile_table_is_right():
    """Every bundled profile has its line, with its bits and its weight sigma."""
    rows = {row[0]: row for row in table("docs/devices.md", "profiles")}
    assert set(rows) == set(profile_names())
    for name, (_, _, _, cells, sigma) in rows.items():
        profile = load_profile(name)
        assert cells == (f"{profile.cell_bits} bits" if profile.cell_bits else "analog")
        weight = device_facts(operating_point(profile)).weight.rms
        assert float(sigma) == pytest.approx(weight, abs=0.0008), name


def test_trials_table_is_right():
    """The trials that a bound needs are those of the code."""
    for percentile, *shown in table("docs/method.md", "trials for a bound"):
        k = float(percentile.rstrip(" %"))
        assert [int(n) for n in shown] == [trials_for_bound(k, 0.95, sided=s) for s in (1, 2)]


def test_every_report_key_is_explained():
    """Every key of report.json stands in the table."""
    text = (ROOT / "docs" / "report.md").read_text(encoding="utf-8")
    keys = set(re.findall(r"`(\w+)`", "".join(re.findall(r"^\| (`\w+`(?:, `\w+`)*) \|", text, re.MULTILINE))))
    assert keys == set(AuditReport.model_fields)
