"""One file a run; each file's first lines say how to launch it."""
