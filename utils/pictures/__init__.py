"""What a person looks at: colored maps, PNG, video."""
