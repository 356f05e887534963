"""Works of many steps: a reallocation from beginning to end, a ranking study."""
