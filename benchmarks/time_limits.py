"""Wall time of every command against its `--max-minutes`, and its first estimate against the time it took.

Claim to back: a command with a limit ends within a tenth of it, or five seconds; what it says first about its
length is within a factor of two.

    python benchmarks/time_limits.py MODEL.onnx DATA.npz CALIBRATION.npz [--minutes 0.2 1] [--only audit …]

Every command runs in a process of its own with one worker; its start counts. `--minutes 0` gives no limit:
then the first line of the form "about … left" is compared with the time that the command took from there on.
"""

from __future__ import annotations

import argparse
import re
import subprocess
import sys
import tempfile
import time
from pathlib import Path

DEVICE = ("--device", "fefet1", "--sigma", "0.2")
UNITS = {"h": 3600.0, "min": 60.0, "s": 1.0}


def commands(model: str, data: str, calibration: str, folder: Path) -> dict[str, list[str]]:
    """The commands by name, each with more to do than the time allows."""
    on = [model, "--data", data]
    trained = [model, "--data", calibration, "--test-data", data, "--device", "fefet1"]
    return {
        "audit": ["audit", *on, *DEVICE, "--trials", "20000"],
        "gate": ["audit", *on, *DEVICE, "--trials", "20000", "--min-kpp", "0.3"],
        "attribution": ["audit", *on, *DEVICE, "--trials", "2000", "--attribute", "all"],
        "sweep": ["audit", *on, *DEVICE, "--adc-bits", "4:8"],
        "landscape": ["landscape", *on, "--pairs", "40"],
        "roofline": ["roofline", *on, "--device", "fefet1", "--adc-bits", "6"],
        "explore": ["explore", *on, *DEVICE, "--technology", "cmos_32nm_isaac", "--trials", "400"],
        "remap": ["harden", *on, *DEVICE, "--method", "remap", "-o", str(folder / "remapped.onnx")],
        "trice": ["harden", *trained, "--method", "trice", "-o", str(folder / "trice.onnx")],
        "stability-vat": ["harden", *trained, "--method", "stability-vat", "-o", str(folder / "vat.onnx")],
    }


def first_estimate(lines: list[tuple[float, str]]) -> tuple[float, float] | None:
    """When the length was first said, and the seconds that were said to be left."""
    for at, line in lines:
        found = re.search(r"about ((?:\d+ (?:h|min|s) ?)+)(?:left|\(|$)", line)
        if found:
            return at, sum(float(n) * UNITS[unit] for n, unit in re.findall(r"(\d+) (h|min|s)", found[1]))
    return None


def run(words: list[str]) -> tuple[float, int, list[tuple[float, str]]]:
    """Seconds, exit code, and the lines of standard error with the second at which each came."""
    begin = time.perf_counter()
    process = subprocess.Popen(
        [sys.executable, "-m", "nvaudit", *words, "-j", "1", "--no-cache"],
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        text=True,
    )
    assert process.stderr is not None
    lines = [(time.perf_counter() - begin, line.rstrip()) for line in process.stderr]
    code = process.wait()
    return time.perf_counter() - begin, code, lines


def main() -> None:
    """Print a table."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("files", nargs=3, metavar="FILE")
    parser.add_argument("--minutes", type=float, nargs="+", default=[0.2, 1.0])
    parser.add_argument("--only", nargs="+")
    options = parser.parse_args()
    print("| command | limit, s | took, s | over, s | exit | said : took |\n|---|---|---|---|---|---|")
    with tempfile.TemporaryDirectory() as folder:
        for name, words in commands(*options.files, Path(folder)).items():
            if options.only and name not in options.only:
                continue
            for minutes in options.minutes:
                limit = [] if not minutes else ["--max-minutes", f"{minutes:g}"]
                seconds, code, lines = run([*words, *limit])
                said = None if minutes else first_estimate(lines)
                ratio = "" if said is None else f"{said[1] / max(seconds - said[0], 1e-9):.2f}"
                over = f"{seconds - 60 * minutes:.1f}" if minutes else ""
                print(
                    f"| {name} | {60 * minutes:g} | {seconds:.1f} | {over} | {code} | {ratio} |", flush=True
                )


if __name__ == "__main__":
    main()
