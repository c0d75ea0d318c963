"""Selective write-verify: which weights to verify, and what that gives."""
