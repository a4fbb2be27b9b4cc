"""What each HTML page shows, as plain values for its template. The views are in `service.routes`."""
