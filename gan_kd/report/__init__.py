"""Reports of a run: the published tables as data, the plots, the HTML and Markdown pages, the picture of the method."""
