"""What CI looks at beside tests and model; each file is one target of the Makefile. Standard library and tools alone."""
