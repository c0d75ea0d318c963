"""Property tests here draw the same examples in every run, and never fail for being slow on a busy machine."""

from hypothesis import settings

settings.register_profile("fixed", derandomize=True, deadline=None)
settings.load_profile("fixed")
