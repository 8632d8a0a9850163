"""`python -m scautoimpute` is the command `scautoimpute`."""

from .cli import main

__all__: list[str] = []

if __name__ == "__main__":
    main()
