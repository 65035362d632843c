"""The executor of artifacts: C sources, which `building` compiles, and the Python class that loads what comes out."""
