"""What a remapping says that left the model as it was."""

import pytest

from nvaudit.remapping.reporting import unchanged_text


@pytest.mark.parametrize(
    ("tried", "late", "said"),
    [
        (0, True, "there was no time to try anything"),
        (3, True, "nothing that was tried helps, and there was no time for more"),
        (3, False, "nothing helps"),
        (0, False, "nothing helps"),
    ],
)
def test_why_a_model_is_unchanged(tried, late, said):
    """Of candidates that there was no time for, it is not said that they do not help."""
    assert unchanged_text(tried, late) == f"{said}: the model is unchanged"
