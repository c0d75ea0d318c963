"""The errors that nvaudit raises: a flat tree, each with the exit code that the command line gives it.

A message says what is wrong, where, what was found, and what to do about it. The library raises;
only the command line turns an error into text and an exit code.
"""

EXIT_OK = 0
EXIT_GATE = 1
EXIT_BAD_INPUT = 2
EXIT_FAILURE = 3
EXIT_INTERRUPTED = 130


class NvauditError(Exception):
    """Anything that nvaudit reports to its user instead of a traceback."""

    exit_code = EXIT_BAD_INPUT


class ModelError(NvauditError, ValueError):
    """The ONNX file cannot be read, is unsafe, or cannot be audited."""


class DataError(NvauditError, ValueError):
    """The evaluation data cannot be read or does not fit the model."""


class ProfileError(NvauditError, ValueError):
    """The device profile is invalid or unknown."""


class OptionError(NvauditError, ValueError):
    """An option, or a combination of options, makes no sense."""


class KeptError(OptionError):
    """A folder of finished work is of another run, damaged, in use, or cannot be used."""


class InputChangedError(NvauditError, RuntimeError):
    """An input file was written while a result was made from it."""


class EngineError(NvauditError, RuntimeError):
    """Our own failure: a worker that keeps dying, a full disk, no ONNX Runtime."""

    exit_code = EXIT_FAILURE
