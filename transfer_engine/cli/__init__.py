"""The command line. `main` holds the commands; everything heavy is imported by the one that needs it."""
