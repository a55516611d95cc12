"""Print packages as they are installed here, so that they can be installed alike elsewhere: `python versions.py numpy pandas`."""

import sys
from importlib.metadata import version

print(*(f"{name}=={version(name)}" for name in sys.argv[1:]))
