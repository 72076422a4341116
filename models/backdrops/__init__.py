"""What lies behind all media: a color that is learned."""
