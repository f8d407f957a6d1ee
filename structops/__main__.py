from structops.cli import main

main()
