"""What the page on scale says: its commands work, its recipes hold together, its sums are right."""

import json
import math
import os
import re
import shlex
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from nvaudit.cli.audit import audit_command
from nvaudit.perturb.dask.files import CHUNK
from nvaudit.perturb.dask.pool import FIRST_WORKER_S
from nvaudit.perturb.dask.queue import group_s
from nvaudit.perturb.dask.roster import GONE_S
from nvaudit.perturb.dask.worker import IDLE_S
from nvaudit.perturb.record import _SIZE

PAGE = Path(__file__).parents[2] / "docs" / "scale.md"
TEXT = PAGE.read_text(encoding="utf-8")


def block(kind: str, first: str) -> str:
    """The fenced block that begins with a text."""
    (found,) = (
        body for body in re.findall(rf"^```{kind}\n(.*?)^```$", TEXT, re.M | re.S) if body.startswith(first)
    )
    return found


@pytest.fixture
def here(tmp_path, monkeypatch, example):
    """A folder with the model and its data, and the commands of this environment."""
    for suffix in (".onnx", ".npz"):
        shutil.copy(example.with_suffix(suffix), tmp_path / f"model{suffix}")
    monkeypatch.setenv("PATH", os.pathsep.join([str(Path(sys.executable).parent), os.environ["PATH"]]))
    monkeypatch.setenv("DASK_TEMPORARY_DIRECTORY", str(tmp_path))
    return tmp_path


@pytest.mark.slow
def test_a_local_cluster_is_started_and_used(here):
    """The commands as they stand give the values of a run without Dask; the cluster is ended by its jobs."""
    pytest.importorskip("distributed", reason="needs Dask: pip install 'nvaudit[dask]'")
    script = (
        block("text", "dask scheduler --port 0")
        + "status=$?\nkill %2; wait %2\nkill %1; wait %1\nexit $status\n"
    )
    done = subprocess.run(["bash"], input=script, cwd=here, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    alone = [sys.executable, "-m", "nvaudit", "audit", "model.onnx", "--device", "fefet1", "--trials", "50"]
    subprocess.run([*alone, "-o", "alone.json"], cwd=here, capture_output=True, check=True)
    one, other = (json.loads((here / name).read_text()) for name in ("report.json", "alone.json"))
    for key in ("trials", "kpp", "nominal", "quantised"):
        assert one[key] == other[key]
    assert one["events"] == []
    assert one["run"]["dask"] == "scheduler.json"


def test_the_slurm_script_is_a_script():
    """bash reads it, and every directive is one that sbatch knows."""
    script = block("text", "#!/bin/bash")
    subprocess.run(["bash", "-n"], input=script, text=True, check=True)
    directives = re.findall(r"^#SBATCH --([a-z-]+)", script, re.M)
    assert directives == ["job-name", "nodes", "ntasks-per-node", "cpus-per-task", "time", "requeue"]


def test_the_kubernetes_objects_fit_together():
    """Selectors match labels, the address is that of the service, volumes that are mounted exist."""
    yaml = pytest.importorskip("yaml", reason="comes with Dask")
    objects = list(yaml.safe_load_all(block("yaml", "apiVersion")))
    assert [o["kind"] for o in objects] == ["Service", "Deployment", "Deployment", "Job"]
    service, scheduler, worker, job = objects
    for deployment in (scheduler, worker):
        labels = deployment["spec"]["template"]["metadata"]["labels"]
        assert deployment["spec"]["selector"]["matchLabels"] == labels
    assert service["spec"]["selector"] == scheduler["spec"]["template"]["metadata"]["labels"]
    address = f"tcp://{service['metadata']['name']}:{service['spec']['ports'][0]['port']}"
    for workload in (worker, job):
        pod = workload["spec"]["template"]["spec"]
        (container,) = pod["containers"]
        assert address in container["args"]
        assert {m["name"] for m in container["volumeMounts"]} == {v["name"] for v in pod["volumes"]}


def commands() -> list[list[str]]:
    """Every audit command of the page that no test runs."""
    lines = TEXT.replace("\\\n", " ").splitlines()
    found = [shlex.split(line)[1:] for line in lines if line.startswith("nvaudit audit")]
    (listed,) = re.findall(r"args: \[nvaudit, (audit.*?)\]\n", TEXT, re.S)
    return [*found, [word.strip().strip('"') for word in listed.split(",")]]


@pytest.mark.parametrize("command", commands(), ids=lambda words: " ".join(words)[:40])
def test_audit_commands_are_understood(command):
    """Their options exist and have values that they may have."""
    with audit_command.make_context("audit", command[1:]) as context:
        assert context.params["model"].name == "model.onnx"


def cells(row: str) -> list[str]:
    (line,) = re.findall(rf"^\| {re.escape(row)} \| (.*) \|$", TEXT, re.M)
    return line.split(" | ")


def numbers(row: str) -> list[float]:
    return [float(cell.split(" = ")[0].split()[0].replace(",", "")) for cell in cells(row)]


def test_the_sums_of_a_million_chips_are_right():
    """They follow from the seconds of a chip and the costs that are stated."""
    chips, threads, machines = 1_000_000, 1000, 16
    task_ms, chip_ms = (
        float(re.search(pattern, TEXT)[1])
        for pattern in (r"scheduler (\S+) ms of processor", r"own process (\S+) ms and")
    )
    for column, second in enumerate(numbers("seconds of a chip")):
        wall = chips * second / threads
        together = math.ceil(group_s(threads) / second - 1e-9)
        tasks = math.ceil(chips / together)
        expected = {
            "chips": chips * second,
            "on 1,000 threads": wall,
            "chips in a task of at least 5 s": together,
            "tasks": tasks,
            "tasks a second": tasks / wall,
            "scheduler, share of a core": 100 * tasks / wall * task_ms / 1000,
            "the audit's own process, share of a core": 100 * chips * chip_ms / 1000 / wall,
            "calls and answers between the audit and the scheduler": (130 * chips + 2000 * tasks) / 1e9,
            "the record of finished chips": _SIZE * chips / 1e6,
        }
        for row, value in expected.items():
            assert numbers(row)[column] == pytest.approx(value, rel=0.06, abs=0.6 if "share" in row else 0), (
                row
            )
        hours = float(re.search(r"= ([\d,]+) core-hours", cells("chips")[column])[1].replace(",", ""))
        assert hours == pytest.approx(chips * second / 3600, rel=0.01)
    lenet = float(re.search(r"the files of\s+the LeNet run are (\d+) MB", TEXT)[1])
    assert numbers("files to 16 machines")[0] == pytest.approx(machines * lenet / 1000, rel=0.1)
    assert group_s(threads) == 5


def test_the_limits_are_those_of_the_code():
    """Seconds, minutes and sizes as stated."""
    assert f"no Dask worker in the cluster for {FIRST_WORKER_S:.0f} s" in TEXT
    assert f"waits {GONE_S / 60:.0f} minutes for new ones" in TEXT
    assert f"idle processes end after {IDLE_S / 60:.0f} minutes" in TEXT
    assert f"in parts of {CHUNK >> 20} MiB" in TEXT
