"""One thread for torch: the networks of these tests are too small to share, and the machine may be busy."""

import pytest

torch = pytest.importorskip("torch")
torch.set_num_threads(1)
