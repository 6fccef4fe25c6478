"""The commands: flags, clocks, terminals, and nothing that computes. One module for each, and what they share."""
