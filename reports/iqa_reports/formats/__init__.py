"""A table or report as text, Markdown, CSV, LaTeX and HTML."""
