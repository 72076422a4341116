"""Where to sample: rays and a medium to intervals."""
