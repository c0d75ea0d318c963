"""`python -m nvaudit`."""

from nvaudit.cli import main

main()
