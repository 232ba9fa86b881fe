"""One file per command: the module exposes `command`, and its docstring is the command's help."""
