"""`python -m flows` is `alpacafarm`."""

from flows.cli import main

main()
