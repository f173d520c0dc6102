"""What the chapters, exercises and tools of the course share."""
