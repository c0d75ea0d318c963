"""Device profiles: the bundled ones, and one at an operating point."""
