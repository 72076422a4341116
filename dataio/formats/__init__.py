"""One file per data format: files on disk -> `Views`."""
