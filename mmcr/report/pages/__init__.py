"""Pages: of a search, of a whole run, of a ranking study."""
