"""What labels are for: scores of frozen features."""
