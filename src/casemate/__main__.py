"""`python -m casemate` is the `casemate` command."""

from casemate.cli import main

if __name__ == "__main__":
    main()
