"""Progress: a bar on a terminal, a line now and then elsewhere, nothing when asked for quiet."""

import io

import pytest

from nvaudit.cli import progress
from nvaudit.cli.progress import ProgressDisplay, _duration


class Clock:
    """Time that a test moves."""

    now = 0.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def clock(monkeypatch) -> Clock:
    clock = Clock()
    monkeypatch.setattr(progress.time, "monotonic", clock)
    return clock


def run(display: ProgressDisplay, clock: Clock, seconds_per_chip: float, chips: int, total: int) -> None:
    with display as show:
        show("reading model and data", 0, 1)
        show("running the unmodified model", 0, 1)
        for done in range(1, chips + 1):
            clock.now += seconds_per_chip
            show("chips", done, total)


def test_a_long_run_says_where_it_is(clock, capsys):
    """A line every 15 seconds, on standard error, with the time that is left."""
    run(ProgressDisplay(), clock, 5.0, 10, 100)
    captured = capsys.readouterr()
    assert captured.out == ""
    assert captured.err.splitlines() == [
        "nvaudit: chips 4/100, about 8 min 0 s left",
        "nvaudit: chips 7/100, about 7 min 45 s left",
        "nvaudit: chips 10/100, about 7 min 30 s left",
    ]


def test_many_short_pieces_of_work_are_not_silent(clock, capsys):
    """As the points of an exploration: a line every 15 seconds says which one it is."""
    with ProgressDisplay() as show:
        for point in range(1, 9):
            show(f"point {point} of 8: preparing", 0, 20)
            for done in range(1, 5):
                clock.now += 1.5
                show(f"point {point} of 8: chips", done, 20)
    assert capsys.readouterr().err.splitlines() == [
        "nvaudit: point 4 of 8: preparing",
        "nvaudit: point 7 of 8: preparing",
    ]


@pytest.mark.parametrize(
    ("quiet", "seconds", "chips"), [(True, 60.0, 10), (False, 0.1, 100), (False, 60.0, 1)]
)
def test_short_and_quiet_runs_say_nothing(clock, capsys, quiet, seconds, chips):
    """Nothing is printed in the first 15 seconds, nor at the end, nor when asked for quiet."""
    run(ProgressDisplay(quiet), clock, seconds, chips, chips)
    assert capsys.readouterr() == ("", "")


def test_forced_colour_makes_no_terminal(clock, capsys, monkeypatch):
    """FORCE_COLOR, as set in many CI systems, does not put a bar's control codes into the log."""
    monkeypatch.setenv("FORCE_COLOR", "1")
    run(ProgressDisplay(), clock, 5.0, 5, 100)
    assert capsys.readouterr().err == "nvaudit: chips 4/100, about 8 min 0 s left\n"


def test_a_terminal_gets_a_bar_that_goes_away(monkeypatch):
    """On a terminal the phases and the chips are drawn, and erased at the end."""

    class Terminal(io.StringIO):
        def isatty(self) -> bool:
            return True

    screen = Terminal()
    monkeypatch.setenv("TERM", "xterm")
    monkeypatch.setattr("sys.stderr", screen)
    with ProgressDisplay() as show:
        show("reading model and data", 0, 1)
        for done in range(1, 4):
            show("chips", done, 3)
    text = screen.getvalue()
    assert "3/3" in text
    assert text.endswith("\x1b[2K")


@pytest.mark.parametrize(
    ("seconds", "text"),
    [
        (0, "0 s"),
        (59.4, "59 s"),
        (60, "1 min 0 s"),
        (3599, "59 min 59 s"),
        (3600, "1 h 0 min"),
        (1e5, "27 h 46 min"),
    ],
)
def test_durations(seconds, text):
    """Hours, minutes and seconds as people say them."""
    assert _duration(seconds) == text
