"""The report: one HTML page that shows how a version was trained and how it errs. It loads nothing and runs nothing."""
