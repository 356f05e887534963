"""HTML pages: of a search, of a whole run."""
