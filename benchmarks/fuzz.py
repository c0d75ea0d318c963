"""A fuzz campaign: mutated models, profiles, data, CSV files and reports through the commands.

Claim backed: whatever the input, a command ends with exit code 0, 1 or 2, without a traceback or a library's
warning, within its time and below 2 GiB.

    python benchmarks/fuzz.py --cases 100000 --seed 0 --out fuzz-out  # 45 minutes of one core
    python benchmarks/fuzz.py --cases 500 --kind onnx --out fuzz-out
    python benchmarks/fuzz.py --show onnx:17 --seed 0 --out fuzz-out

Every case follows from seed, kind and number. Cases run inside a forked process, a few hundred one after
another; a process that hangs or dies is replaced. ``OUT/results.jsonl`` keeps one line for each: the same
command goes on where it was cut off. The files of a case that fails are kept in ``OUT/failed``.
"""

from __future__ import annotations

import argparse
import contextlib
import gc
import json
import os
import random
import resource
import select
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from fuzz_cases import EXAMPLE, KINDS, REPO, Case, Seeds, make_case, seed_models

BATCH = 500
HANG_SECONDS = 90
MAX_BYTES = 2 << 30
ADDRESS_SPACE = 6 << 30  # beyond what the process has mapped: protects the machine
FINE = (0, 1, 2)
_WARNING = ("Traceback (most recent call last)", "Warning:", "internal error")


def main() -> int:
    """Run a campaign; exit code 1 if a case failed."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--cases", type=int, default=1000)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--kind", choices=[*KINDS, "all"], default="all")
    parser.add_argument("--out", type=Path, default=Path("fuzz-out"))
    parser.add_argument("--show", metavar="KIND:NUMBER")
    options = parser.parse_args()
    options.out.mkdir(parents=True, exist_ok=True)
    seeds = make_seeds(options.out / "seeds")
    if options.show:
        return _show(options, seeds)
    kinds = KINDS if options.kind == "all" else (options.kind,)
    numbers = [(kinds[i % len(kinds)], i // len(kinds)) for i in range(options.cases)]
    results = options.out / f"results-{options.seed}.jsonl"
    done = {(line["kind"], line["number"]): line for line in read_lines(results)}
    left = [case for case in numbers if case not in done]
    with results.open("a") as file:
        for line in run_cases(left, options.seed, seeds, options.out / "failed"):
            done[line["kind"], line["number"]] = line
            file.write(json.dumps(line) + "\n")
            file.flush()
    return summary([done[case] for case in numbers if case in done])


def make_seeds(folder: Path, models: int | None = None) -> Seeds:
    """What is mutated; reports are made once by running the commands."""
    folder.mkdir(parents=True, exist_ok=True)
    few = ["-n", "6", "-j", "0", "-q", "--limit", "8"]
    model = str(EXAMPLE)
    wanted = {
        "audit": [
            "audit",
            model,
            *few,
            "--sigma",
            "0.1:0.2:0.1",
            "--min-kpp",
            "0.2",
            "--yield-at",
            "0.5",
            "--tail",
            "0.1",
            "--attribute",
            "all",
            "-o",
        ],
        "crossbar": ["audit", model, *few, "--no-roughness", "--adc-bits", "6", "--skip-zero-groups", "-o"],
        "compare": ["compare", model, f"{folder}/copy.onnx", *few, "--no-roughness", "-o"],
        "roofline": ["roofline", model, *few, "--cell-bits", "1,2", "-o"],
        "verify": ["verify-plan", model, *few, "--ranking", "magnitude", "--report"],
        "remap": [
            "harden",
            model,
            "-m",
            "remap",
            "-o",
            f"{folder}/h.onnx",
            "-n",
            "6",
            "-j",
            "0",
            "-q",
            "--calibration-images",
            "8",
            "--calibration-chips",
            "2",
            "--report",
        ],
        "harden": [
            "harden",
            model,
            "-m",
            "gaussian",
            "--epochs",
            "1",
            "-o",
            f"{folder}/h.onnx",
            "-n",
            "6",
            "-j",
            "0",
            "-q",
            "--no-roughness",
            "--report",
        ],
    }
    shutil.copy(EXAMPLE, folder / "copy.onnx")
    shutil.copy(EXAMPLE.with_suffix(".npz"), folder / "copy.npz")
    for name, arguments in wanted.items():
        if not (folder / f"{name}.json").exists():
            _nvaudit([*arguments, str(folder / f"{name}.json")])
    landscape = folder / "landscape.json"
    if not landscape.exists():
        landscape.write_bytes(
            _nvaudit(["landscape", model, "--grid", "3", "--pairs", "1", "-j", "0", "-q", "--json"])
        )
    reports = [
        (folder / f"{name}.json").read_bytes()
        for name in (*wanted, "landscape")
        if (folder / f"{name}.json").exists()
    ]
    profiles = [
        path.read_bytes() for path in sorted((REPO / "devices").glob("*.json")) if path.name != "schema.json"
    ]
    return Seeds(seed_models(models), profiles, reports)


def _nvaudit(arguments: list[str]) -> bytes:
    ran = subprocess.run([sys.executable, "-m", "nvaudit", *arguments], stdout=subprocess.PIPE, check=False)
    if ran.returncode not in (0, 1):
        print(f"no seed from: nvaudit {' '.join(arguments)}", file=sys.stderr)
    return ran.stdout


def case_of(kind: str, number: int, seed: int, seeds: Seeds) -> Case:
    """The case of a number."""
    return make_case(kind, random.Random(f"{seed}-{kind}-{number}"), seeds)


def run_cases(
    cases: list[tuple[str, int]],
    seed: int,
    seeds: Seeds,
    failed: Path | None = None,
    hang: float = HANG_SECONDS,
) -> Iterator[dict[str, Any]]:
    """Run cases in forked processes; yields a line for each."""
    _warm_up(seeds)
    place = 0
    while place < len(cases):
        batch = cases[place : place + BATCH]
        for line in _forked(batch, seed, seeds, failed, hang):
            place += 1
            yield line


def _warm_up(seeds: Seeds) -> None:
    """Run what most cases run, so that modules and schemas are there before the fork, not loaded in each."""
    from nvaudit import cli

    with tempfile.TemporaryDirectory(prefix="nvaudit-fuzz-") as scratch, open(os.devnull, "w") as nowhere:
        before = os.environ.get("NVAUDIT_CACHE")
        os.environ["NVAUDIT_CACHE"] = f"{scratch}/cache"
        profile, report, model = (f"{scratch}/{name}" for name in ("p.json", "r.json", "m.onnx"))
        Path(profile).write_bytes(seeds.profiles[0])
        Path(report).write_bytes(seeds.reports[0])
        Path(model).write_bytes(seeds.models[1])
        few = ["-n", "2", "-q", "-j", "0", "--limit", "2", "--no-roughness"]
        with contextlib.redirect_stdout(nowhere), contextlib.redirect_stderr(nowhere):
            for arguments in (
                ["inspect", model],
                ["audit", str(EXAMPLE), *few],
                ["audit", model, *few],
                ["devices", "show", profile, "--plot"],
                ["report", report, "--html", f"{scratch}/r.html"],
                ["report", report, "--junit", f"{scratch}/r.xml"],
            ):
                cli.run(arguments)
        if before is None:
            del os.environ["NVAUDIT_CACHE"]
        else:
            os.environ["NVAUDIT_CACHE"] = before
    gc.freeze()


def _forked(
    batch: list[tuple[str, int]], seed: int, seeds: Seeds, failed: Path | None, hang: float
) -> Iterator[dict[str, Any]]:
    """Run a batch in one process, until it ends, dies or hangs."""
    reader, writer = os.pipe()
    with tempfile.TemporaryDirectory(prefix="nvaudit-fuzz-") as scratch:
        child = os.fork()
        if child == 0:
            os.close(reader)
            with contextlib.suppress(BaseException), os.fdopen(writer, "w") as answers:
                _serve(batch, seed, seeds, Path(scratch), answers)
            os._exit(0)
        os.close(writer)
        finished = 0
        with os.fdopen(reader) as answers:
            while finished < len(batch):
                ready, _, _ = select.select([answers], [], [], hang)
                text = answers.readline() if ready else ""
                if not text:
                    os.kill(child, signal.SIGKILL)
                    kind, number = batch[finished]
                    why = "died" if ready else "hang"
                    line = {
                        "kind": kind,
                        "number": number,
                        "code": None,
                        "fault": why,
                        "seconds": hang,
                        "peak": 0,
                    }
                else:
                    line = json.loads(text)
                finished += 1
                if line["fault"] and failed is not None:
                    _keep(line, seed, seeds, failed)
                yield line
                if not text:
                    break
        with contextlib.suppress(ChildProcessError):
            os.waitpid(child, 0)


def _serve(batch: list[tuple[str, int]], seed: int, seeds: Seeds, scratch: Path, answers: Any) -> None:
    """Run the cases of a batch in this process."""
    from nvaudit import cli

    (scratch / "tmp").mkdir()
    os.environ["TMPDIR"] = tempfile.tempdir = str(scratch / "tmp")
    os.environ["COLUMNS"] = "100"
    os.environ["XDG_CACHE_HOME"] = str(scratch / "cache")
    outside = os.getcwd()
    mapped = int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()
    resource.setrlimit(resource.RLIMIT_AS, (mapped + ADDRESS_SPACE, mapped + ADDRESS_SPACE))
    for number in (1, 2):
        os.dup2(os.open(scratch / f"{number}.txt", os.O_RDWR | os.O_CREAT), number)
    os.dup2(os.open(os.devnull, os.O_RDONLY), 0)
    sys.stdout, sys.stderr = os.fdopen(1, "w", closefd=False), os.fdopen(2, "w", closefd=False)
    for kind, number in batch:
        case = case_of(kind, number, seed, seeds)
        folder = scratch / "case"
        arguments = write_case(case, folder)
        for handle in (1, 2):
            os.ftruncate(handle, 0)
            os.lseek(handle, 0, os.SEEK_SET)
        Path("/proc/self/clear_refs").write_text("5")  # the peak begins anew
        begin = time.monotonic()
        try:
            code: Any = cli.run(arguments)
        except BaseException as error:
            code = f"{type(error).__name__} left the command"
        seconds = time.monotonic() - begin
        with contextlib.suppress(Exception):
            sys.stdout.flush()
            sys.stderr.flush()
        said = (scratch / "2.txt").read_bytes().decode(errors="replace")
        peak = _peak()
        fault = ending(code, said, peak)
        line = {
            "kind": kind,
            "number": number,
            "code": code,
            "fault": fault,
            "seconds": round(seconds, 3),
            "peak": peak,
        }
        answers.write(json.dumps(line | ({"said": said[-1500:]} if fault else {})) + "\n")
        answers.flush()
        os.chdir(outside)
        shutil.rmtree(folder, ignore_errors=True)


def _peak() -> int:
    status = Path("/proc/self/status").read_text()
    return int(next(line.split()[1] for line in status.splitlines() if line.startswith("VmHWM"))) * 1024


def ending(code: Any, said: str, peak: int) -> str:
    """What is wrong with how a case ended; empty if nothing."""
    if code not in FINE:
        return f"exit {code}"
    if any(word in said for word in _WARNING):
        return "warning"
    if code == 2 and not said.strip():
        return "silent"
    return "memory" if peak > MAX_BYTES else ""


def write_case(case: Case, folder: Path) -> list[str]:
    """Write the files of a case; gives its command line."""
    folder.mkdir(parents=True, exist_ok=True)
    for name, data in case.files.items():
        (folder / name).write_bytes(data)
    return [part.replace("{d}", str(folder)) for part in case.arguments]


def _keep(line: dict[str, Any], seed: int, seeds: Seeds, failed: Path) -> None:
    folder = failed / f"{line['kind']}-{seed}-{line['number']}"
    arguments = write_case(case_of(line["kind"], line["number"], seed, seeds), folder)
    (folder / "command.txt").write_text(
        f"nvaudit {' '.join(arguments)}\n# {line['fault']}\n{line.get('said', '')}\n"
    )


def read_lines(path: Path) -> list[dict[str, Any]]:
    """Lines of an earlier run; a torn last line is left out."""
    found = []
    for text in path.read_text().splitlines() if path.exists() else ():
        with contextlib.suppress(ValueError):
            found.append(json.loads(text))
    return found


def summary(lines: list[dict[str, Any]]) -> int:
    """Print counts by kind and exit code, and what failed."""
    print("kind       cases  exit 0  exit 1  exit 2  faults  longest      peak")
    for kind in [*dict.fromkeys(line["kind"] for line in lines), "all"]:
        some = [line for line in lines if kind in (line["kind"], "all")]
        codes = Counter(line["code"] for line in some if not line["fault"])
        print(
            f"{kind:8} {len(some):7} {codes[0]:7} {codes[1]:7} {codes[2]:7} "
            f"{sum(bool(line['fault']) for line in some):7} "
            f"{max((line['seconds'] for line in some), default=0):7.1f}s "
            f"{max((line['peak'] for line in some), default=0) / 2**20:6.0f} MiB"
        )
    faults = Counter(
        (
            line["fault"],
            line.get("said", "").strip().splitlines()[-2:][0][:150] if line.get("said", "").strip() else "",
        )
        for line in lines
        if line["fault"]
    )
    for (fault, said), count in faults.most_common(40):
        example = next(line for line in lines if line["fault"] == fault)
        print(f"{count:6} × {fault}: {said}   (e.g. {example['kind']}:{example['number']})")
    return 1 if faults else 0


def _show(options: Any, seeds: Seeds) -> int:
    kind, number = options.show.split(":")
    folder = options.out / "shown" / f"{kind}-{options.seed}-{number}"
    print("nvaudit", *write_case(case_of(kind, int(number), options.seed, seeds), folder))
    return 0


if __name__ == "__main__":
    sys.exit(main())
