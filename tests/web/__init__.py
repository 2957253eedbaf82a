"""From the outside, through the whole application."""
