"""What a search found, and why it chose what it chose."""
