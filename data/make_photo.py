"""Make data/photo.jpg, half as wide and high, from a photograph that scikit-learn ships (needs Pillow, too).

    python data/make_photo.py

The file comes out the same, byte for byte, each time: its sha256 stands in data/README.md and in
course_utils/datasets.py.
"""

from pathlib import Path

from PIL import Image
from sklearn.datasets import load_sample_image

photo = Image.fromarray(load_sample_image("china.jpg"))  # 640 × 427
photo.resize((320, 214), Image.Resampling.LANCZOS).save(
    Path(__file__).with_name("photo.jpg"), quality=88, optimize=True
)
