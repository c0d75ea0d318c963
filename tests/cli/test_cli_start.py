"""How much a command loads before it has anything to do."""

import subprocess
import sys

import pytest

from nvaudit.cli.commands import _HOME

HEAVY = ("numpy", "onnx", "onnx_ir", "onnxruntime", "plotly", "scipy", "torch")


@pytest.mark.parametrize("command", [*sorted(_HOME), "devices show"])
def test_help_loads_nothing_heavy(command):
    """Help, and a mistyped option, are answered at once: what runs a command is imported when it runs."""
    code = (
        "import sys\n"
        "from nvaudit.cli import run\n"
        f"status = run({command.split()!r} + ['--help'])\n"
        f"loaded = sorted(set({HEAVY!r}) & set(sys.modules))\n"
        "sys.exit(f'{loaded} is loaded: import it inside the function' if loaded else status)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert "Usage:" in done.stdout


@pytest.mark.parametrize("job", ["auditing", "sweeping", "exploring", "remapping", "fitting"])
def test_a_job_loads_what_it_always_needs(job):
    """Each of its workers does too: half a second of `scipy.stats` would be paid in all of them."""
    code = (
        "import sys\n"
        f"import nvaudit.jobs.{job}\n"
        "late = ('scipy.stats', 'scipy.optimize', 'plotly', 'torch', 'pandas', 'matplotlib')\n"
        "sys.exit(' '.join(name for name in late if name in sys.modules) or 0)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert (done.returncode, done.stderr) == (0, "")
