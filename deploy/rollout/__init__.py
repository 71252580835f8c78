"""What is to be done and in which order, and the record of it; talks to no host."""
