"""Training: one loop over any family, from data in the users' formats to files that the pack's own nodes load."""
