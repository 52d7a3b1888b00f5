"""python -m razor: see cli.py."""

from razor.cli import main

if __name__ == "__main__":
    main()
