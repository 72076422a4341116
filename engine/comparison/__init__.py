"""Many runs: made by a sweep, laid beside one another."""
