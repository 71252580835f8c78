"""Files that survive a crash: where they are, how they are written, who may write."""
