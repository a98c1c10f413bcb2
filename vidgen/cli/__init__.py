"""The command line: words in, records and words out. Nothing here imports torch at module level."""
