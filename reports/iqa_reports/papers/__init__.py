"""Tables and figures in the form of the papers."""
