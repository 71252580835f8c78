"""What a run tells people: summary, page, kept reports, the command to go on with."""
