"""What a network is, as data: it knows no files and no devices."""
