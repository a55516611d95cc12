"""One thread: for data this small more of them only wait for each other, long where others use the machine too."""

import os

os.environ.setdefault("OMP_NUM_THREADS", "1")  # read when scikit-learn is imported, which is after this

from . import unwatched

unwatched.libraries()
