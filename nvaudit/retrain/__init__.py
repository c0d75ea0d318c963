"""Hardening: the only package that knows torch. Empty in this version."""
