"""How inputs become the rows that hidden weights multiply, and rows become samples."""
