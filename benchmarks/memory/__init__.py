"""What a training takes of memory, beside what was said before it."""
