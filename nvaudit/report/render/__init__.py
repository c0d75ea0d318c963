"""A document in each form: terminal, Markdown, page, tables."""
