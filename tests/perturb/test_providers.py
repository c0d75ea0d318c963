"""A run is on the execution provider that was asked for, or it is refused."""

import json
import sys
from types import SimpleNamespace

import pytest

from nvaudit.errors import OptionError
from nvaudit.perturb.providers import PROVIDERS, session_on


class FakeSession:
    """What ONNX Runtime's Python interface gives, with the providers that it ended up with."""

    def __init__(self, ends):
        self.ends, self.fallback = ends, True

    def get_providers(self):
        return self.ends

    def disable_fallback(self):
        self.fallback = False


def fake(offered, ends, says="", folder="/nowhere"):
    def make(graph, options, providers):
        sys.stdout.write(says)
        return FakeSession(ends)

    return SimpleNamespace(
        __version__="9.9", __file__=f"{folder}/__init__.py", InferenceSession=make,
        get_available_providers=lambda: list(offered), get_device=lambda: "GPU",
    )  # fmt: skip


CPU, CUDA = PROVIDERS["cpu"], PROVIDERS["cuda"]


def test_a_silent_fallback_is_refused(capsys):
    """A session that has fallen back to the processor is not one of the GPU, whatever ONNX Runtime offers."""
    ort = fake([CUDA, CPU], [CPU], "*** EP Error ***\nEP Error no TensorRT libraries\n***")
    said = r"--provider cuda: .* 9\.9 has CUDA.*run on CPU.* says: no TensorRT libraries.*--provider cpu"
    with pytest.raises(OptionError, match=said):
        session_on(ort, b"", None, "cuda")
    assert capsys.readouterr().out == ""  # standard output is for results


def test_a_library_that_does_not_load_is_named(tmp_path):
    """The loader's own words are the reason."""
    (tmp_path / "capi").mkdir()
    (tmp_path / "capi" / "libonnxruntime_providers_cuda.so").write_bytes(b"not a library")
    with pytest.raises(OptionError, match=r"its library does not load: .*libonnxruntime_providers_cuda\.so"):
        session_on(fake([CUDA, CPU], [CPU], folder=tmp_path), b"", None, "cuda")


def test_a_provider_that_runs_may_not_fall_back_later():
    """Single operators may run on the processor; the session as a whole may not move there when it is run."""
    session = session_on(fake([CUDA, CPU], [CUDA, CPU]), b"", None, "cuda")
    assert session.fallback is False


@pytest.mark.parametrize("provider", sorted(set(PROVIDERS) - {"cpu"}))
@pytest.mark.parametrize("workers", [0, 1])
def test_what_this_onnx_runtime_has_not_is_refused(command, example, provider, workers, tmp_path):
    """Exit code 2 with what there is, no results, in this process and in workers."""
    out = tmp_path / "r.json"
    ran = command("audit", example, "-n", 2, "-j", workers, "--limit", 8, "--provider", provider, "-o", out)
    if ran.code == 0:  # a machine that has it
        assert json.loads(out.read_text(encoding="utf-8"))["runtime"]["providers"][0] == PROVIDERS[provider]
        return
    assert ran.code == 2
    assert f"--provider {provider}: " in ran.err
    assert CPU in ran.err
    assert (ran.out, out.exists()) == ("", False)


@pytest.mark.parametrize("words", [("landscape",), ("roofline", "-n", 2), ("verify-plan", "-n", 2),
                                   ("harden", "-m", "remap", "-n", 2),
                                   ("harden", "-n", 2, "--epochs", 1)])  # fmt: skip
def test_every_command_refuses_it(command, example, tmp_path, words):
    """Before any result: no command runs on another provider than it was told to."""
    output = ("-o", tmp_path / "out.onnx") if words[0] == "harden" else ()
    ran = command(words[0], example, *words[1:], "-j", 0, "-q", "--provider", "rocm", *output)
    assert ran.code == 2
    assert "--provider rocm: " in ran.err
    assert not list(tmp_path.iterdir())


def test_the_report_says_what_ran(command, example, tmp_path):
    """JSON has what was asked for and what the session had; text names both."""
    import onnxruntime

    out = tmp_path / "r.json"
    ran = command("audit", example, "-n", 2, "-j", 1, "--limit", 8, "-o", out)
    found = json.loads(out.read_text(encoding="utf-8"))["runtime"]
    assert found["requested"] == "cpu"
    assert found["providers"] == [CPU]
    assert found["version"] == onnxruntime.__version__
    assert found["device"] == onnxruntime.get_device()
    assert f"Run on {CPU} (ONNX Runtime {onnxruntime.__version__}; --provider cpu)" in " ".join(
        ran.out.split()
    )


def test_training_on_a_gpu_that_torch_has_not_is_refused(command, example, tmp_path):
    """harden --provider cuda says why torch cannot, before it reads anything."""
    import torch

    if torch.cuda.is_available():
        pytest.skip("torch has a GPU here")
    ran = command("harden", example, "--epochs", 1, "--provider", "cuda", "-o", tmp_path / "h.onnx")
    assert ran.code == 2
    assert f"--provider cuda: torch {torch.__version__} cannot train on a GPU: " in ran.err
