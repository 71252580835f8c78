"""The Hub's queue of reviews, as the controller sees it."""
