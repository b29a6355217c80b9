"""The report of prep, made from the files that prep left and nothing else: a page, Markdown, and lines for a terminal."""
