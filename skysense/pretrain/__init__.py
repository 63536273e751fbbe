"""Pre-training of SkySense V2 and V1: views, losses, student and teacher, the run."""
