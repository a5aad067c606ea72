"""`python -m keras_dsd`: the command `keras-dsd`."""

import sys

from keras_dsd.cli.main import main

sys.exit(main())
