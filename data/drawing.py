"""What draw_parts.py draws with: shapes, textures, light and a camera, in plain NumPy.

A picture is drawn on a fine grid, three points to a pixel each way, over which x (to the right) and
y (down) run from -1 to 1. Fields are float64 arrays (FINE, FINE), colours are arrays of three from
0 to 1. In float64 the last digits, which differ between processors, hardly ever reach a pixel.
"""

from collections.abc import Sequence
from itertools import pairwise

import numpy as np
from numpy.random import Generator
from numpy.typing import ArrayLike, NDArray

Field = NDArray[np.float64]  # (FINE, FINE)
Scene = NDArray[np.float64]  # (FINE, FINE, 3)
Vector = NDArray[np.float64]  # (3,): a direction or a colour
Point = tuple[float, float]

SIZE = 64  # pixels of a picture, each way
OVERSAMPLING = 3
FINE = SIZE * OVERSAMPLING
SPACING = 2 / FINE

_axis = (np.arange(FINE) + 0.5) * SPACING - 1
X, Y = np.meshgrid(_axis, _axis)


# Shapes: a distance is negative inside, positive outside.


def ramp(start: float, end: float, field: Field) -> Field:
    """Rise smoothly from 0 where the field is `start` to 1 where it is `end` (which may be the smaller)."""
    t = np.clip((field - start) / (end - start), 0, 1)
    return t * t * (3 - 2 * t)


def inside(distance: Field) -> Field:
    """Cover (1) what is inside a shape, leave (0) what is outside, with a soft edge."""
    return ramp(1.5 * SPACING, -1.5 * SPACING, distance)


def blend(below: ArrayLike, above: ArrayLike, cover: Field) -> Scene:
    """Lay colours or a colour over others, as opaque as `cover` says at each point."""
    cover = cover[..., None]
    return np.asarray(below) * (1 - cover) + np.asarray(above) * cover


def pose(rng: Generator, scale: Point, shift: float, turn: float = np.pi) -> tuple[Field, Field, float]:
    """Put an object somewhere: return its own coordinates u and v at each point, and how far it is turned."""
    angle, size = rng.uniform(-turn, turn), rng.uniform(*scale)
    x, y = (X - rng.uniform(-shift, shift)) / size, (Y - rng.uniform(-shift, shift)) / size
    return x * np.cos(angle) + y * np.sin(angle), y * np.cos(angle) - x * np.sin(angle), angle


def angle_between(angles: Field, angle: float) -> Field:
    """Return how far angles are from an angle, from 0 to π."""
    return np.abs(np.mod(angles - angle + np.pi, 2 * np.pi) - np.pi)


def wander(
    rng: Generator, start: Point, heading: float, steps: int, stride: float, bend: float
) -> list[Point]:
    """Walk from a point, turning by at most `bend` before each step: the path of a crack or a scratch."""
    path = [start]
    for _ in range(steps):
        heading += rng.uniform(-bend, bend)
        x, y = path[-1]
        path.append((x + stride * np.cos(heading), y + stride * np.sin(heading)))
    return path


def distance_to(path: Sequence[Point], u: Field, v: Field) -> Field:
    """Return the distance of each point to a path of straight pieces."""
    nearest = np.full_like(u, np.inf)
    for (ax, ay), (bx, by) in pairwise(path):
        dx, dy = bx - ax, by - ay
        along = np.clip(((u - ax) * dx + (v - ay) * dy) / (dx * dx + dy * dy), 0, 1)
        nearest = np.minimum(nearest, np.hypot(u - ax - along * dx, v - ay - along * dy))
    return nearest


# Textures


def noise(rng: Generator, columns: int, rows: int | None = None) -> Field:
    """Return smooth random values from 0 to 1, with so many bumps across and down."""
    rows = rows or columns
    values = rng.random((rows + 1, columns + 1))
    i, s = _cells(rows)
    j, t = _cells(columns)
    s, i = s[:, None], i[:, None]
    upper = values[i, j] * (1 - t) + values[i, j + 1] * t
    lower = values[i + 1, j] * (1 - t) + values[i + 1, j + 1] * t
    return upper * (1 - s) + lower * s


def clouds(rng: Generator, bumps: int, octaves: int = 3) -> Field:
    """Return noise with finer and fainter noise on it, around 0, mostly from -0.3 to 0.3."""
    weights = 0.5 ** np.arange(octaves)
    layers = [noise(rng, min(bumps * 2**k, FINE)) for k in range(octaves)]
    return np.tensordot(weights / weights.sum(), layers, 1) - 0.5


def chips(rng: Generator, across: int) -> tuple[Field, NDArray[np.intp]]:
    """Break the plane into irregular chips: return the distance to a chip's border, and its number.

    A chip is what lies nearer to its own seed than to any other; the seeds lie one to a square of a
    grid, so that only the nine squares around a point need a look.
    """
    seeds = rng.random((across + 2, across + 2, 2))
    x, y = (X + 1) / 2 * across + 1, (Y + 1) / 2 * across + 1
    column, row = x.astype(int), y.astype(int)
    first, second = np.full_like(X, np.inf), np.full_like(X, np.inf)
    number = np.zeros(X.shape, dtype=np.intp)
    for down in (-1, 0, 1):
        for right in (-1, 0, 1):
            i, j = row + down, column + right
            distance = np.hypot(j + seeds[i, j, 0] - x, i + seeds[i, j, 1] - y)
            nearer = distance < first
            second = np.where(nearer, first, np.minimum(second, distance))
            number = np.where(nearer, i * (across + 2) + j, number)
            first = np.minimum(first, distance)
    return (second - first) / across, number


def around(rng: Generator, positions: Field, bumps: int, end: float) -> Field:
    """Return random values from 0 to 1 along one coordinate, which runs from 0 to `end`."""
    return np.interp(positions, np.linspace(0, end, bumps + 1), rng.random(bumps + 1))


def _cells(count: int) -> tuple[NDArray[np.intp], Field]:
    """Return for each point of an axis the cell of `count` that it lies in, and where in it, eased."""
    position = (np.arange(FINE) + 0.5) / FINE * count
    cell = position.astype(int)
    t = position - cell
    return cell, t * t * (3 - 2 * t)


# Light and camera


def lamp(rng: Generator) -> Vector:
    """Return the direction to a lamp that stands somewhere around, well above the table."""
    azimuth, height = rng.uniform(0, 2 * np.pi), rng.uniform(0.75, 1.15)
    return np.array([np.cos(azimuth) * np.cos(height), np.sin(azimuth) * np.cos(height), np.sin(height)])


def shade(height: Field, light: Vector, gloss: float) -> tuple[Field, Field]:
    """Light a relief: return how bright its matt surface is, and how strongly it reflects the lamp.

    The first is Lambert's cosine, the second Blinn and Phong's highlight, narrower the larger `gloss`.
    """
    down, right = np.gradient(height, SPACING)
    normal = np.stack([-right, -down, np.ones_like(height)]) / np.sqrt(right**2 + down**2 + 1)
    halfway = light + np.array([0, 0, 1])
    halfway /= np.linalg.norm(halfway)
    matt, shine = np.tensordot(light, normal, 1), np.tensordot(halfway, normal, 1)
    return np.clip(matt, 0, 1), np.clip(shine, 0, 1) ** gloss


def blur(image: NDArray[np.float64], radius: int) -> NDArray[np.float64]:
    """Average over squares of 2 · radius + 1 points, twice: nearly a Gaussian blur."""
    width = 2 * radius + 1
    for axis in (0, 1, 0, 1):
        margins = [(radius + 1, radius) if a == axis else (0, 0) for a in range(image.ndim)]
        sums = np.pad(image, margins, mode="edge").cumsum(axis)
        last, first = np.arange(width, width + FINE), np.arange(FINE)
        image = (sums.take(last, axis) - sums.take(first, axis)) / width
    return image


def cast_shadow(ground: Scene, cover: Field, light: Vector, soft: int, dark: ArrayLike) -> Scene:
    """Darken the ground on the far side of an object, seen from the lamp: by a share, or one a channel."""
    right, down = np.round(-16 * light[:2]).astype(int)
    shadow = blur(np.roll(cover, (down, right), axis=(0, 1)), soft)
    return ground * (1 - shadow[..., None] * np.asarray(dark))


def photograph(rng: Generator, scene: Scene) -> NDArray[np.uint8]:
    """Take the picture: uneven light, exposure, white balance, focus, sensor noise. (64, 64, 3) uint8."""
    x, y = rng.uniform(-0.2, 0.2, 2)
    vignette = 1 - rng.uniform(0.03, 0.14) * ((X - x) ** 2 + (Y - y) ** 2)
    scene = scene * vignette[..., None] * rng.uniform(0.86, 1.12) * rng.uniform(0.965, 1.035, 3)
    scene = blur(scene, rng.choice([0, 0, 1]))
    image = scene.reshape(SIZE, OVERSAMPLING, SIZE, OVERSAMPLING, 3).mean((1, 3))
    image = image + rng.normal(0, rng.uniform(0.006, 0.016), image.shape)
    return np.round(255 * np.clip(image, 0, 1) ** 0.87).astype(np.uint8)
