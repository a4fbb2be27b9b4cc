"""The job: from a job file to a published model."""
