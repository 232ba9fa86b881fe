"""The commands of `snapdrill flags`, one file each."""
