"""The version of this package, which is that of the program that it carries."""

__version__ = "0.1.0"
