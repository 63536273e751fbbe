"""The losses of pre-training, one file each: tensors in, scalars or pairs of rows out."""
