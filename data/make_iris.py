"""Make data/iris.csv from scikit-learn's copy of Fisher's irises (needs scikit-learn).

    python data/make_iris.py

The file comes out the same, byte for byte, each time: its sha256 stands in data/README.md and in
course_utils/datasets.py.
"""

import csv
from pathlib import Path

from sklearn.datasets import load_iris

iris = load_iris()
with Path(__file__).with_name("iris.csv").open("w", newline="", encoding="utf-8") as file:
    writer = csv.writer(file, lineterminator="\n")
    writer.writerow(["sepal_length", "sepal_width", "petal_length", "petal_width", "species"])
    for features, label in zip(iris.data, iris.target, strict=True):
        writer.writerow([*(f"{length:.1f}" for length in features), iris.target_names[label]])
