"""Multiply-accumulates: which operators make them, with which weights, and how many."""
