"""Reading: files to samples. Nothing here knows a model."""
