"""The live fleet on screen; the only package that imports textual."""
