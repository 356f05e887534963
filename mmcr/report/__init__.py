"""What came out, for people to read: costs, comparisons, sketches, reports."""
