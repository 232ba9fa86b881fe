"""Screens: they put widgets together and turn keys into requests."""
