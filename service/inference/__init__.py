"""Forward passes, drift statistics and range warnings."""
