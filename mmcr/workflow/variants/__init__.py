"""Reallocations that begin or search otherwise."""
