class ImageError(Exception):
    """Something the user can act on: the message is one sentence with the cause and the remedy."""
