"""What most rooms use: files, seeds, signals, tables and the log."""
