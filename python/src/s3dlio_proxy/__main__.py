"""`python -m s3dlio_proxy`, see _cli.py."""

import sys

from ._cli import main

sys.exit(main())
