"""`python -m kumafast`: the command for those who have the package but not its script.

In: arguments. Out: what `kumafast.cli.main` does. Never: anything else.
"""

from kumafast.cli.main import main

if __name__ == "__main__":
    main()
