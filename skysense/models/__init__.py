"""The model families. They see batches, never files, datasets or ranks."""
