"""Reports: the HTML page, its charts and tables, and the terminal table."""
