"""Plans: how a net runs when nobody looks at the blobs in between."""
