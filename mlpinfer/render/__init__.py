"""Reports for people: terminal text."""
