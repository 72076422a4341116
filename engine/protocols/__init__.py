"""How the field's benchmarks score a surface: one protocol in each file."""
