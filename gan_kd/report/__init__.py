"""Reports of runs as HTML and Markdown, the published tables as data, the picture of the method."""
