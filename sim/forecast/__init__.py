"""A fleet of any size as arrays: what the flag would do to it at each weight, without a guest."""
