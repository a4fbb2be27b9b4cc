"""Storage backends: a directory or a bucket."""
