"""Widgets that draw values; none of them reads anything by itself."""
