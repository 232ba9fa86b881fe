"""What `snapdrill bench` measures, how it interleaves it, and how it tells it."""
