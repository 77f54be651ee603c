"""Reports: the page, its charts and tables, and the table on the terminal."""
