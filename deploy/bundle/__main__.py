import sys

from deploy.bundle.build import main

if __name__ == "__main__":
    sys.exit(main())
