"""One training run: in this process, or in several that share the work."""
