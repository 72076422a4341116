"""Which pixels a step takes, and what the photographs say of them, where the photographs are: no host asks or waits."""
