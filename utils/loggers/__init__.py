"""Where numbers and pictures of a run go beside its own files: one library, one file."""
