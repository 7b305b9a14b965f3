"""Training: from an experiment to a finished run and its files."""
