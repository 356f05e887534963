"""The parts of `tools/make_env.py`: standard library only.

Like the script itself they keep to syntax that a Python too old for mmcr can read,
so that it gets to the message that says so.
"""
