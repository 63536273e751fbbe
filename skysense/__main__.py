"""`python -m skysense`."""

from skysense.cli import main

if __name__ == "__main__":
    main()
