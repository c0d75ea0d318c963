"""Fixtures that every test may use."""

import os
import shutil
import signal
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import pytest
from hypothesis import settings

# Threads of torch that wait for one another sleep, as in `nvaudit harden`: spinning, they take twenty times
# as long where another process has a core.
os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")

# Tests leave nothing in the user's cache; those about it name a folder of their own.
os.environ["NVAUDIT_CACHE"] = "off"

# A suite that is started in the background ignores Ctrl-C; commands that it starts must not inherit that.
if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
    signal.signal(signal.SIGINT, signal.default_int_handler)

# Property tests draw the same examples in every run, and do not fail because a machine is busy.
settings.register_profile("fixed", derandomize=True, deadline=None)
settings.load_profile("fixed")

EXAMPLE = Path(__file__).parents[1] / "examples" / "digits_cnn.onnx"


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--rewrite-goldens", action="store_true", help="Write tests/golden anew.")


SLOW = Path(__file__).with_name("slow.txt")
"""Cases that are marked slow, one to a line: a case cannot be marked by itself where a test has many."""


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Mark the slow cases.

    Raises
    ------
    pytest.UsageError
        If one that stands in the list is not there any more.
    """
    listed = {line for line in SLOW.read_text(encoding="utf-8").splitlines() if not line.startswith("#")}
    for item in items:
        if item.nodeid in listed:
            item.add_marker("slow")
    whole = all("::" not in argument for argument in config.args)  # else a file is collected in part
    read = {item.nodeid.partition("::")[0] for item in items}
    gone = listed - {item.nodeid for item in items}
    if stale := sorted(name for name in gone if whole and name.partition("::")[0] in read):
        raise pytest.UsageError(f"{SLOW.name}: {stale[0]}: no such case; take it out")


@dataclass(frozen=True)
class Ran:
    """What a command left behind."""

    code: int
    out: str
    err: str


@pytest.fixture(autouse=True)
def our_environment():
    """A test that changes a variable of ours for those after it fails itself, not one of them."""
    before = ours_set()
    yield
    after = ours_set()
    for name in after:
        del os.environ[name]
    os.environ.update(before)
    assert after == before


def ours_set() -> dict[str, str]:
    """The variables that nvaudit reads."""
    return {name: value for name, value in os.environ.items() if name.startswith("NVAUDIT_")}


@pytest.fixture(scope="session")
def shared_data() -> Path:
    """The folder of reference models and data; the test is skipped where it is absent."""
    root = Path(os.environ.get("NVAUDIT_SHARED_DATA", Path(__file__).parents[2] / "shared" / "data"))
    if not (root / "models.json").is_file():
        pytest.skip(f"the reference models and data are not at {root}; set NVAUDIT_SHARED_DATA to use them")
    return root


def last_of_each(words: list[str]) -> list[str]:
    """A command line whose later options replace earlier ones: tests change one of many."""
    import click

    from nvaudit.cli.commands import cli

    found = (
        cli.get_command(click.Context(cli), words[0]) if words[:1] and words[0][:1] not in ("", "-") else None
    )
    names = {
        name: option
        for option in (found.params if isinstance(found, click.Command) and len(words) > 1 else ())
        if isinstance(option, click.Option) and not option.multiple and not option.is_flag
        for name in option.opts
    }
    places = {names[word]: i for i, word in enumerate(words) if word in names}
    kept, i = [], 0
    while i < len(words):
        option = names.get(words[i])
        if option is not None and places[option] != i:
            i += 1 + option.nargs
            continue
        kept.append(words[i])
        i += 1
    return kept


@pytest.fixture
def command(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> Callable[..., Ran]:
    """Run ``nvaudit`` in this process: ``command("audit", path, "-n", 2)``.

    An audit leaves the roughness out unless ``--roughness`` asks for it, as in ``quick.audit``.
    """
    from nvaudit.cli import run

    monkeypatch.setenv("COLUMNS", "100")

    def call(*arguments: object) -> Ran:
        words = [str(argument) for argument in arguments]
        if words[:1] == ["audit"] and "--roughness" not in words:
            words.insert(1, "--no-roughness")
        code = run(last_of_each(words))
        captured = capsys.readouterr()
        return Ran(code, captured.out, captured.err)

    return call


@pytest.fixture(scope="session")
def example() -> Path:
    """The example network, with its data beside it."""
    return EXAMPLE


@pytest.fixture
def unlabelled(tmp_path: Path) -> Path:
    """The example network in a folder of its own, without data."""
    folder = tmp_path / "unlabelled"
    folder.mkdir()
    return Path(shutil.copy(EXAMPLE, folder))
