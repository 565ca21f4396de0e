"""Make data/digits.npz from scikit-learn's copy of the handwritten digits (needs scikit-learn).

    python data/make_digits.py

The file comes out the same, byte for byte, each time: its sha256 stands in data/README.md and in
course_utils/datasets.py.
"""

from pathlib import Path

import numpy as np
from sklearn.datasets import load_digits

digits = load_digits()
np.savez_compressed(
    Path(__file__).with_name("digits.npz"),
    images=digits.images.astype(np.uint8),  # (1797, 8, 8), ink from 0 to 16
    labels=digits.target.astype(np.uint8),  # (1797,), 0 to 9
)
