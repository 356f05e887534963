"""Weights: read, checked, inherited from supernets, reallocated from classifiers."""
