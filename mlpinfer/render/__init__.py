"""Reports for people: terminal text, pictures, a web page."""
