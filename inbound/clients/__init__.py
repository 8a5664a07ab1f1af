"""One module for each foreign library or service; the only place where it is imported."""
