"""Trained networks against each other: the run-off, the verdict, the ranking study."""
