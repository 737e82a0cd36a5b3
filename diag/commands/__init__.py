"""The commands, one file each: options in, exit code out. What computes is imported when a command runs."""
