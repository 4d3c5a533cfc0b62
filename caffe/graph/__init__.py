"""From a NetParameter to connected layers."""
