"""What is done to the root of an image, by `make images` and by the Containerfile alike.

Only Python's standard library and `images.services` are imported: a stage of the Containerfile has no more.
"""
