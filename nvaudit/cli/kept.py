"""What a command keeps of its finished work, so that the same command goes on where it was cut off.

With ``--resume DIR`` the user names the folder and owns it. Otherwise a folder of the user's cache is taken,
named by the command and everything that its work depends on. What lies in it is of the same inputs, options
and versions or is thrown away; once the command has handed out its results, the folder is removed.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import shlex
import shutil
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import click
from click.core import ParameterSource

from nvaudit.cli.options import FilePath, stack
from nvaudit.cli.outputs import OUTPUT_PARAMETERS
from nvaudit.cli.say import tell
from nvaudit.errors import EXIT_INTERRUPTED, EngineError, KeptError, OptionError, why_unread
from nvaudit.files import replacing
from nvaudit.perturb.lock import LOCK_FILE, is_held, try_lock
from nvaudit.perturb.scratch import OWNER_FILE

if TYPE_CHECKING:
    from nvaudit.report.sections import TimeBox

Command = TypeVar("Command", bound=Callable[..., Any])
Result = TypeVar("Result")

_OFF = "off"
_CACHE = "nvaudit.kept"
_DAYS = 30
_MOST_BYTES = 1 << 30
_NAME_DIGITS = 20
_NO_INFLUENCE = ("workers", "dask")
_SHOWN = (*OUTPUT_PARAMETERS, "reports", "resume", "quiet")
_WORK = "work"
_TAG = (
    "Signature: 8a477f597d28d172789f06886806bc55\n# Finished work of nvaudit; may be removed at any time.\n"
)


def resume_option(what: str, further: str = "") -> Callable[[Command], Command]:
    """The folder that keeps finished work for good; ``further`` is what else the same command goes on to."""
    return click.option(
        "--resume", type=FilePath(), metavar="DIR", help=f"Keep {what} in this folder: the same command goes "
        f"on where it was cut off{further}.  [default: none is kept]"
    )  # fmt: skip


def cache_options() -> Callable[[Command], Command]:
    """Options that say where finished work is kept without ``--resume``; :func:`keeping` reads them."""

    def note(ctx: click.Context, param: click.Parameter, value: Any) -> None:
        ctx.meta[f"{_CACHE}.{param.name}"] = value

    return stack(
        click.option("--cache", type=FilePath(), envvar="NVAUDIT_CACHE", show_envvar=True, metavar="DIR",
                     help="Where finished work is kept without --resume, until the command has come to its "
                     "end, 30 days and 1 GiB at most; off: nowhere.  [default: the user's cache folder]",
                     callback=note, expose_value=False),
        click.option("--no-cache", is_flag=True, help="The same as --cache off.", callback=note,
                     expose_value=False),
    )  # fmt: skip


@dataclass
class Kept:
    """Where the work of a command is kept.

    Attributes
    ----------
    folder : Path or None
        None: nowhere.
    own : bool
        Whether the user has named it with ``--resume``.
    what : str
        What is kept, in words.
    why_not : str
        Why nothing is kept, in words.
    """

    folder: Path | None
    own: bool
    what: str
    why_not: str = ""
    arguments: Sequence[str] = ()

    def run(self, work: Callable[[Path | None], Result]) -> Result:
        """Do the work with the folder; what another run has left in one of the cache is thrown away.

        Parameters
        ----------
        work : callable
            Takes the folder.
        """
        if self.folder is None or self.own:
            return work(self.folder)
        if _holds_work(self.folder):
            tell(f"nvaudit: going on with the {self.what} of an earlier run, in {self.folder}")
        try:
            return work(self.folder)
        except KeptError:
            tell("nvaudit: they are of other inputs or another version: thrown away, beginning anew")
            shutil.rmtree(self.folder, ignore_errors=True)
            return work(self.folder)

    def done_or_boxed(self, box: TimeBox | None) -> None:
        """Remove what was kept, or say of a run whose time was over how it goes on."""
        if box is None:
            self.done()
            return
        from nvaudit.report.wording import count_text  # takes a moment

        tell(
            f"nvaudit: the time is over after {box.done:,} of {count_text(box.wanted, box.what)}; "
            f"{self.how_to_go_on()}"
        )

    def done(self) -> None:
        """Remove what was kept: its results are handed out."""
        if self.folder is not None and not self.own:
            shutil.rmtree(self.folder, ignore_errors=True)

    @property
    def command(self) -> str | None:
        """The command that goes on; None if nothing is kept."""
        if self.folder is None or not (self.own or _holds_work(self.folder)):
            return None
        return shlex.join(["nvaudit", *self.arguments])

    def how_to_go_on(self) -> str:
        """Say how a command that was cut off goes on."""
        if self.command is not None:
            return (
                f"{self.what} are kept in {self.folder}; run the same command again to go on:\n{self.command}"
            )
        if self.folder is not None:
            return f"there are no {self.what} yet that could be kept"
        why = f" ({self.why_not})" if self.why_not else ""
        return f"nothing is kept{why}; with --resume DIR the same command goes on where it was cut off"


@contextlib.contextmanager
def keeping(
    what: str,
    resume: Path | None,
    depends_on: Mapping[str, Any],
    reports_part: bool = False,
) -> Iterator[Kept]:
    """Choose the folder; a command that is interrupted or fails inside the block says how to go on.

    Parameters
    ----------
    what : str
        What is kept, e.g. ``finished chips``.
    resume : Path or None
        The folder of ``--resume``.
    depends_on : mapping
        Of what the work depends on: options by name. Paths are taken as absolute ones.
    reports_part : bool
        Whether the command reports what is done by itself as soon as anything is.

    Raises
    ------
    click.exceptions.Exit
        With the exit code of an interrupted run.
    """
    with contextlib.ExitStack() as stack:
        kept = _choose(what, resume, depends_on, stack)
        kept.arguments = click.get_current_context().find_root().obj or ()
        try:
            yield kept
        except KeyboardInterrupt:
            if kept.command is not None:
                tell(f"nvaudit: interrupted; {kept.how_to_go_on()}")
            elif reports_part:  # nothing was done yet that could have been kept
                tell("nvaudit: interrupted; nothing was written")
            else:
                tell(f"nvaudit: interrupted; nothing was written; {kept.how_to_go_on()}")
            raise click.exceptions.Exit(EXIT_INTERRUPTED) from None
        except EngineError as error:  # such as a file that cannot be written at the end
            if kept.command is None:
                raise
            raise EngineError(f"{error}; {kept.how_to_go_on()}") from error


def parameters(*without: str) -> dict[str, Any]:
    """What the command was given, but what has no influence on the work: where it goes, how it is shown."""
    given = click.get_current_context().params
    return {name: value for name, value in given.items() if name not in {*without, *_SHOWN}}


def _choose(
    what: str,
    resume: Path | None,
    depends_on: Mapping[str, Any],
    stack: contextlib.ExitStack,
) -> Kept:
    from nvaudit.perturb.record import CACHE_TAG

    context = click.get_current_context()
    cache, no_cache = context.meta[f"{_CACHE}.cache"], context.meta[f"{_CACHE}.no_cache"]
    typed = context.get_parameter_source("cache") is ParameterSource.COMMANDLINE
    if no_cache and typed:
        raise OptionError("--cache and --no-cache: choose one")
    if resume is not None:
        if typed or no_cache:
            raise OptionError(f"--resume and {'--cache' if typed else '--no-cache'}: choose one")
        return Kept(resume, True, what)
    if no_cache or str(cache) == _OFF:
        return Kept(None, False, what, "--no-cache" if no_cache else "the cache is off")
    root = _default_root() if cache is None else cache
    if root is None:
        return Kept(None, False, what, "there is no home folder")
    try:
        folder = root / _name(context.command_path, depends_on)
        folder.mkdir(parents=True, exist_ok=True)
        with replacing(root / CACHE_TAG) as new:
            new.write_text(_TAG, encoding="ascii")
        free = _take(folder, stack)
    except OSError as error:
        if cache is not None:
            raise OptionError(
                f"--cache {cache}: cannot be used: {why_unread(error)}; name a folder that can be written"
            ) from error
        return Kept(None, False, what, f"{root} cannot be written: {error.strerror}")
    _tidy(root)
    if not free:
        return Kept(None, False, what, f"another process runs the same command, or {root} knows no locks")
    return Kept(folder / _WORK, False, what)


def _absolute(value: Any) -> Any:
    """A value whose paths do not depend on where the command is started."""
    if isinstance(value, tuple | list):
        return [_absolute(item) for item in value]
    return os.path.realpath(value) if isinstance(value, str | Path) and os.path.exists(value) else value


def _take(folder: Path, stack: contextlib.ExitStack) -> bool:
    """Lock a folder of the cache until the stack ends, and remove it then if no work is in it."""
    handle = os.open(folder / OWNER_FILE, os.O_RDWR | os.O_CREAT, 0o600)
    if not try_lock(handle):
        os.close(handle)
        return False

    def leave() -> None:
        if not _holds_work(folder / _WORK):
            shutil.rmtree(folder, ignore_errors=True)
        os.close(handle)

    stack.callback(leave)
    return True


def _holds_work(folder: Path) -> bool:
    """Whether anything is finished in a folder: a refused run leaves a lock, an early end an empty record."""
    from nvaudit.perturb.record import RECORD_FILE, has_chips

    return any(
        has_chips(path) if path.name == RECORD_FILE else path.name != LOCK_FILE
        for path in folder.rglob("*")
        if path.is_file()
    )


def _default_root() -> Path | None:
    """Where this system keeps what programs can make again."""
    if sys.platform == "win32":
        base = os.environ.get("LOCALAPPDATA")
        return Path(base) / "nvaudit" / "Cache" if base else None
    if sys.platform == "darwin":
        base, below = os.environ.get("HOME"), Path("Library") / "Caches"
        return Path(base) / below / "nvaudit" if base else None
    base = os.environ.get("XDG_CACHE_HOME")
    if base and Path(base).is_absolute():
        return Path(base) / "nvaudit"
    home = os.environ.get("HOME")
    return Path(home) / ".cache" / "nvaudit" if home else None


def _name(command: str, depends_on: Mapping[str, Any]) -> str:
    """Name a folder: the same for the same work, wherever it is started."""
    influences = {name: _absolute(value) for name, value in depends_on.items() if name not in _NO_INFLUENCE}
    text = json.dumps([command.split()[-1], influences], sort_keys=True, default=str)
    return f"{command.split()[-1]}-{hashlib.sha256(text.encode()).hexdigest()[:_NAME_DIGITS]}"


def _tidy(root: Path) -> None:
    """Remove what is old, and the oldest beyond the size; nothing that a process works in."""
    folders = []
    for folder in root.iterdir():
        with contextlib.suppress(OSError, ValueError):  # another process may be at it too
            if folder.is_symlink() or is_held(folder / OWNER_FILE):
                continue
            files = [path.lstat() for path in folder.rglob("*")]
            newest = max(item.st_mtime for item in files)
            folders.append((newest, sum(item.st_size for item in files), folder))
    total = sum(size for _, size, _ in folders)
    for newest, size, folder in sorted(folders):
        if time.time() - newest > _DAYS * 86400 or total > _MOST_BYTES:
            shutil.rmtree(folder, ignore_errors=True)
            total -= size
