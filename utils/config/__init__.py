"""YAML to strict configs: reading, merging, exchangeable parts, schedules, mistakes as lines."""
