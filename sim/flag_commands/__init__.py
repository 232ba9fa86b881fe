"""The commands of `snapdrill flags`: one file a command."""
