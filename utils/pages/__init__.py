"""Pages of HTML that need nothing else: no other file, nothing from the network."""
