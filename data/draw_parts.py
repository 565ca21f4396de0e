"""Draw data/parts/*.jpg and data/parts.csv: 600 pictures as a camera over a conveyor belt might take them.

    python data/draw_parts.py

Five objects, each good or with one of two defects, 40 pictures of each: 15 classes. Position, size,
rotation, colours, light, defect and camera are drawn at random, but from the picture's own name, so
the files come out the same, byte for byte, each time, where NumPy's generator and Pillow's JPEG writer
are those of NumPy 2.4 and Pillow 13.0.
"""

import csv
import hashlib
from collections.abc import Callable
from pathlib import Path

import numpy as np
from drawing import (
    FINE,
    Field,
    Scene,
    Vector,
    X,
    Y,
    angle_between,
    around,
    blend,
    blur,
    cast_shadow,
    chips,
    clouds,
    distance_to,
    inside,
    lamp,
    noise,
    photograph,
    pose,
    ramp,
    shade,
    wander,
)
from numpy.random import Generator
from numpy.typing import NDArray
from PIL import Image

DEFECTS = {
    "bottle": ("broken", "contamination"),
    "cable": ("cut_insulation", "missing_wire"),
    "capsule": ("crack", "squeeze"),
    "metal_nut": ("rust", "scratch"),
    "tile": ("crack", "oil"),
}
EACH = 40  # pictures of a class
QUALITY = 90  # of the JPEG files: a PNG of the same picture is nearly four times as large, for its noise


# The ground on which the objects lie


def belt(rng: Generator) -> Scene:
    """A dark rubber belt with ribs."""
    turn, ribs = rng.uniform(0, np.pi), rng.uniform(60, 95)
    rib = np.sin((X * np.cos(turn) + Y * np.sin(turn)) * ribs)
    grey = rng.uniform(0.11, 0.20) + 0.06 * clouds(rng, 24) + 0.025 * rib
    return grey[..., None] * rng.uniform([0.85, 0.95, 0.95], [1.0, 1.05, 1.2])


def paper(rng: Generator) -> Scene:
    """A white, unevenly lit sheet."""
    return (rng.uniform(0.76, 0.86) + 0.09 * clouds(rng, 3))[..., None] * rng.uniform(0.96, 1.02, 3)


def tray(rng: Generator) -> Scene:
    """A steel tray, brushed one way."""
    grey = rng.uniform(0.42, 0.56) + 0.18 * (noise(rng, 3, 120) - 0.5) + 0.08 * clouds(rng, 2, 2)
    return grey[..., None] * rng.uniform([0.93, 0.98, 1.0], [1.0, 1.0, 1.08])


# The objects: each returns the scene, drawn with a defect or as "good"


def bottle(rng: Generator, defect: str) -> Scene:
    """A glass bottle from above: lip and shoulder around the neck, through which the bottom is seen."""
    u, v, turn = pose(rng, scale=(0.84, 0.98), shift=0.08)
    radius, angle = np.hypot(u, v), np.arctan2(v, u)
    light = lamp(rng)
    towards_light = np.arctan2(light[1], light[0]) - turn
    amber, green, blue = (0.66, 0.34, 0.10), (0.33, 0.58, 0.38), (0.46, 0.60, 0.74)
    tint = rng.choice([amber, green, blue], p=[0.5, 0.3, 0.2]) * rng.uniform(0.85, 1.1)

    def ring(at: float, width: float) -> Field:
        return np.exp(-(((radius + 0.006 * np.sin(3 * angle) - at) / width) ** 2))

    # Light comes through from the paper below: the longer its way in the glass, the deeper the tint.
    shoulder = 1.0 + 3.0 * ramp(0.66, 0.95, radius) + 0.9 * ring(0.68, 0.03) + 2.0 * ring(0.51, 0.05)
    bottom = 1.4 + 2.0 * ramp(0.15, 0.44, radius) + 0.7 * ring(0.22, 0.04)
    thickness = np.where(radius < 0.44, bottom, shoulder) + 0.3 * clouds(rng, 4)
    depth = 1 - 0.45 * inside(radius - 0.44)
    glass = tint ** thickness[..., None] * depth[..., None]

    reflections = [  # where, how wide, how bright, in which direction, how long
        (0.85, 0.022, 0.75, 0.1, 0.75),
        (0.88, 0.014, 0.50, np.pi, 1.1),
        (0.75, 0.026, 0.85, -0.1, 0.45),
        (0.60, 0.018, 0.35, np.pi, 0.9),
        (0.535, 0.026, 1.10, 0.0, 0.7),
        (0.455, 0.012, 0.80, np.pi, 1.2),
    ]
    for at, width, bright, direction, length in reflections:
        facing = ramp(length, 0.6 * length, angle_between(angle, towards_light + direction))
        glass += (ring(at, width) * bright * (0.08 + facing))[..., None] * [1.0, 0.98, 0.94]

    if defect == "broken":
        glass = _broken(rng, glass, radius, angle, tint)
    elif defect == "contamination":
        glass = _contaminated(rng, glass, u, v, light)
    cover = inside(radius - 0.92)
    return blend(cast_shadow(paper(rng), cover, light, soft=8, dark=0.75 * (1 - tint)), glass, cover)


def _broken(rng: Generator, glass: Scene, radius: Field, angle: Field, tint: Vector) -> Scene:
    """Break a piece out of the rim: a jagged hole with dull facets and bright edges."""
    jagged = 0.22 * (around(rng, np.mod(angle, 2 * np.pi), 26, 2 * np.pi) - 0.5)
    half, at = rng.uniform(0.48, 0.90), rng.uniform(-np.pi, np.pi)
    from_neck, from_rim = radius - 0.40 - jagged / 3, 0.80 + jagged - radius
    depth = np.minimum(half - angle_between(angle, at), 3.5 * np.minimum(from_neck, from_rim))
    _, facet = chips(rng, 6)
    thickness = rng.uniform(0, 5, 64)[facet] + 2 * clouds(rng, 12)
    glass = blend(glass, 0.85 * tint ** thickness[..., None], ramp(0, 0.03, depth))
    edge = ramp(0.06, 0, np.abs(depth)) * inside(radius - 0.9)
    return glass + (0.9 * edge * noise(rng, 9))[..., None]


def _contaminated(rng: Generator, glass: Scene, u: Field, v: Field, light: Vector) -> Scene:
    """Leave a lump of something in the neck."""
    at, angle = rng.uniform(0, 0.25), rng.uniform(0, 2 * np.pi)
    stretch = rng.uniform(0.8, 1.25)
    distance = np.hypot((u - at * np.cos(angle)) * stretch, (v - at * np.sin(angle)) / stretch)
    depth = rng.uniform(0.11, 0.24) - distance + 0.32 * clouds(rng, 7)
    matt, shine = shade(0.45 * np.clip(depth, 0, 0.2) + 0.03 * clouds(rng, 30, 2), light, gloss=20)
    chalk, crust, ash = (0.86, 0.84, 0.78), (0.55, 0.42, 0.24), (0.42, 0.44, 0.46)
    lump = rng.choice([chalk, crust, ash]) * (0.35 + 0.65 * matt)[..., None] + 0.1 * shine[..., None]
    return blend(glass, lump, 0.95 * ramp(0, 0.04, depth) * inside(np.hypot(u, v) - 0.45))


def cable(rng: Generator, defect: str) -> Scene:
    """A cable's cut end: a sheath around a brown, a blue and a green-yellow wire of copper strands."""
    u, v, _ = pose(rng, scale=(0.86, 1.0), shift=0.08)
    radius = np.hypot(u, v)
    light = lamp(rng)
    pale, grey, black = (0.80, 0.79, 0.76), (0.55, 0.56, 0.58), (0.20, 0.20, 0.21)
    matt, _ = shade(0.045 * np.sqrt(np.clip(1 - (radius / 0.92) ** 2, 0, 1)), light, gloss=10)
    dull = 0.8 + 0.2 * ramp(0.9, 0.8, radius) + 0.12 * clouds(rng, 20)
    sheath = rng.choice([pale, grey, black], p=[0.6, 0.25, 0.15]) * (dull * (0.55 + 0.5 * matt))[..., None]

    wrong = rng.integers(3)  # the wire with the defect, if any
    for wire in range(3):
        direction = wire * 2 * np.pi / 3 + rng.uniform(-0.07, 0.07)
        a, b = u - 0.46 * np.cos(direction), v - 0.46 * np.sin(direction)
        cover = inside(np.hypot(a, b) - 0.375)
        if defect == "missing_wire" and wire == wrong:
            depth = 0.05 + 0.10 * ramp(0.05, 0.37, np.hypot(a, b)) + 0.04 * clouds(rng, 12)
            sheath = blend(sheath, depth[..., None] * [1.0, 0.96, 0.92], cover)
        else:
            cut = defect == "cut_insulation" and wire == wrong
            sheath = blend(sheath, _wire(rng, a, b, wire, light, cut), cover)
        groove = ramp(0.03, 0, np.abs(np.hypot(a, b) - 0.375))
        sheath = blend(sheath, 0.55 * sheath, 0.8 * groove)
    cover = inside(radius - 0.9)
    return blend(cast_shadow(tray(rng), cover, light, soft=8, dark=0.55), sheath, cover)


def _wire(rng: Generator, a: Field, b: Field, wire: int, light: Vector, cut: bool) -> Scene:
    """One wire around its own centre: coloured insulation, and a core of strands."""
    radius, angle = np.hypot(a, b), np.arctan2(b, a)
    brown, blue = (0.42, 0.22, 0.12), (0.12, 0.30, 0.62)
    yellow, green = (0.72, 0.64, 0.11), (0.10, 0.45, 0.16)
    matt, shine = shade(0.09 * np.sqrt(np.clip(1 - (radius / 0.4) ** 2, 0, 1)), light, gloss=14)
    colour = np.broadcast_to((brown, blue, yellow)[wire], (FINE, FINE, 3))
    if wire == 2:
        colour = blend(colour, green, ramp(-0.15, 0.15, np.sin(2 * angle + rng.uniform(0, 2 * np.pi))))
    insulation = colour * (0.55 + 0.55 * matt)[..., None] + 0.12 * shine[..., None]
    if cut:
        half, at = rng.uniform(0.5, 1.1), rng.uniform(-np.pi, np.pi)
        depth = np.minimum(half - angle_between(angle, at), 4 * (radius - 0.2)) + 0.3 * clouds(rng, 14, 1)
        insulation = blend(insulation, (0.09, 0.08, 0.075), ramp(0, 0.06, depth))
    return blend(insulation, _strands(rng, a, b, light), inside(radius - 0.245))


def _strands(rng: Generator, a: Field, b: Field, light: Vector) -> Scene:
    """Round copper strands, packed as bees pack their cells: on two grids, one between the other."""
    turn, across, down = rng.uniform(0, np.pi), 0.083, 0.083 * np.sqrt(3)
    a, b = a * np.cos(turn) + b * np.sin(turn), b * np.cos(turn) - a * np.sin(turn)
    a, b = a + 0.03 * clouds(rng, 9), b + 0.03 * clouds(rng, 9)
    core = np.broadcast_to([0.24, 0.13, 0.07], (FINE, FINE, 3))
    for half in (0.0, 0.5):
        column, row = np.round(a / across - half), np.round(b / down - half)
        p, q = a - (column + half) * across, b - (row + half) * down
        centre = np.hypot((column + half) * across, (row + half) * down)
        bright = rng.uniform(0.7, 1.2, (64, 64))[row.astype(int) % 64, column.astype(int) % 64]
        height = np.sqrt(np.clip(1 - (np.hypot(p, q) / 0.05) ** 2, 0, 1))
        glint = np.clip(1 - np.hypot(p - 0.018 * light[0], q - 0.018 * light[1]) / 0.045, 0, 1) ** 2
        strand = (bright * (0.45 + 0.6 * height))[..., None] * [0.80, 0.44, 0.22] + 0.35 * glint[..., None]
        core = blend(core, strand, inside(np.hypot(p, q) - 0.041) * (centre < 0.22))
    return core


def capsule(rng: Generator, defect: str) -> Scene:
    """A two-coloured capsule with its dose, 500, printed on one half."""
    u, v, turn = pose(rng, scale=(0.90, 1.05), shift=0.08)
    light = lamp(rng)
    across = v
    if defect == "squeeze":
        side, at, depth = rng.choice([-1, 1]), rng.uniform(-0.4, 0.4), rng.uniform(0.13, 0.24)
        across = v + side * depth * np.exp(-(((u - at) / 0.16) ** 2)) * ramp(-0.05, 0.3, v * side)
    reach = np.hypot(np.maximum(np.abs(u) - 0.5, 0), across) / 0.34  # 0 on the axis, 1 on the outline
    cover = inside(0.34 * (reach - 1))
    matt, shine = shade(0.26 * np.sqrt(np.clip(1 - reach**2, 0, 1)), light, gloss=34)

    pairs = [
        ((0.80, 0.28, 0.10), (0.12, 0.115, 0.12)),
        ((0.16, 0.36, 0.66), (0.80, 0.80, 0.78)),
        ((0.66, 0.12, 0.14), (0.82, 0.74, 0.40)),
        ((0.13, 0.42, 0.30), (0.86, 0.84, 0.80)),
    ]
    printed, plain = pairs[rng.choice(len(pairs), p=[0.4, 0.2, 0.2, 0.2])]
    shell = blend(plain, printed, ramp(0.012, -0.012, u))
    shell = shell * (1 - 0.45 * ramp(0.03, 0, np.abs(u - 0.02)))[..., None]
    shell = shell * (0.30 + 0.85 * matt)[..., None] + 0.35 * shine[..., None]
    lit_side = np.sign(light[1] * np.cos(turn) - light[0] * np.sin(turn))
    for side, bright in ((lit_side, 0.34), (-lit_side, 0.10)):  # two long lamps
        streak = np.exp(-(((across / 0.34 - 0.52 * side) / 0.1) ** 2)) * ramp(0.65, 0.4, np.abs(u))
        shell = shell + (bright * streak)[..., None]
    shell = blend(shell, (0.97, 0.95, 0.92), 0.85 * _dose(u, across))
    if defect == "crack":
        shell = _crack(rng, shell, u, v)
    ground = cast_shadow(paper(rng), cover, light, soft=9, dark=0.4)
    return blend(ground, shell, cover)


def _dose(u: Field, v: Field) -> Field:
    """The ink of the number 500."""
    five = [(0.05, -0.1), (-0.04, -0.1), (-0.04, 0.0), (0.05, 0.0), (0.05, 0.1), (-0.04, 0.1)]
    nought = [(-0.04, -0.1), (0.05, -0.1), (0.05, 0.1), (-0.04, 0.1), (-0.04, -0.1)]
    digits = [distance_to(digit, u + 0.50 - 0.15 * k, v) for k, digit in enumerate((five, nought, nought))]
    return ramp(0.022, 0.012, np.min(digits, axis=0))


def _crack(rng: Generator, shell: Scene, u: Field, v: Field) -> Scene:
    """Crack the shell across: a dark line whose lips catch the light."""
    start = (rng.uniform(-0.55, 0.55), -0.32)
    heading = np.pi / 2 + rng.uniform(-0.4, 0.4)
    path = wander(rng, start, heading, rng.integers(5, 9), stride=0.095, bend=0.75)
    distance, width = distance_to(path, u, v), rng.uniform(0.03, 0.055)
    shell = blend(shell, 1.3 * shell + 0.1, 0.7 * ramp(2.2 * width, width, distance))
    return blend(shell, (0.05, 0.03, 0.02), 0.95 * ramp(width, 0.3 * width, distance))


def metal_nut(rng: Generator, defect: str) -> Scene:
    """A hexagonal nut, turned on a lathe, with its thread."""
    u, v, turn = pose(rng, scale=(0.78, 0.94), shift=0.1)
    radius, angle = np.hypot(u, v), np.arctan2(v, u)
    light = lamp(rng)
    hole = rng.uniform(0.38, 0.46)
    side = np.mod(angle, np.pi / 3) - np.pi / 6
    outline = np.maximum(radius * np.cos(side) - 0.80, radius - 0.885)
    cover = inside(np.maximum(outline, hole - radius))

    countersink = np.clip(hole + 0.06 - radius, 0, None)
    chamfer = np.clip(radius - 0.74, 0, None)  # a cone cuts the corners off
    grooves = around(rng, radius, 200, 1.3) - 0.5
    relief = 0.004 * grooves + 0.004 * clouds(rng, 30, 2) - 0.7 * countersink - 0.6 * chamfer
    matt, shine = shade(blur(relief, 1), light, gloss=14)
    # A turned face reflects a lamp as two bright sectors, as a record does.
    sectors = (0.5 + 0.5 * np.cos(2 * (angle + turn - np.arctan2(light[1], light[0])))) ** 3
    steel, zinc, brass = (1.0, 0.99, 0.965), (0.93, 0.97, 1.02), (1.12, 0.98, 0.66)
    grey = 0.50 + 0.10 * grooves + 0.16 * sectors + 0.15 * clouds(rng, 4)
    colour = rng.choice([steel, zinc, brass], p=[0.5, 0.3, 0.2])
    metal = (grey * (0.35 + 0.75 * matt) + 0.3 * shine)[..., None] * colour
    metal = blend(metal, 0.4 * metal, 0.8 * ramp(-0.035, 0, outline))
    for _ in range(rng.integers(3)):  # the hairlines that every nut picks up in its box
        metal = _scratch(rng, metal, u, v, width=0.010, deep=0.3)
    if defect == "scratch":
        for _ in range(rng.integers(1, 4)):
            metal = _scratch(rng, metal, u, v, width=rng.uniform(0.020, 0.038), deep=0.9)
    elif defect == "rust":
        metal = _rust(rng, metal, cover, matt)

    ground = cast_shadow(belt(rng), cover, light, soft=8, dark=0.55)
    ground = blend(ground, 0.45 * ground, 0.8 * inside(radius - hole))
    thread = 0.22 + 0.18 * np.sin(230 * radius)
    ground = blend(ground, thread[..., None] * [1, 1, 1], 0.8 * inside(np.abs(radius - hole + 0.03) - 0.03))
    return blend(ground, metal, cover)


def _scratch(rng: Generator, metal: Scene, u: Field, v: Field, width: float, deep: float) -> Scene:
    """Draw a scratch over the face: bright where the metal is bare, dark along its lips."""
    angle, heading = rng.uniform(0, 2 * np.pi, 2)
    middle, half = rng.uniform(0.56, 0.70), rng.uniform(0.2, 0.32)
    start = (middle * np.cos(angle) - half * np.cos(heading), middle * np.sin(angle) - half * np.sin(heading))
    distance = distance_to(wander(rng, start, heading, 7, stride=half / 3.5, bend=0.2), u, v)
    metal = blend(metal, 0.45 * metal, deep * ramp(2.4 * width, width, distance))
    return blend(metal, (0.98, 0.98, 0.96), deep * ramp(width, 0.3 * width, distance))


def _rust(rng: Generator, metal: Scene, cover: Field, matt: Field) -> Scene:
    """Let rust eat a part of the face."""
    damp = clouds(rng, 5, 4)
    dry = np.quantile(damp[cover > 0.5], rng.uniform(0.62, 0.90))
    tone = (0.55 + 0.95 * (clouds(rng, 22) + 0.5)) * (0.5 + 0.6 * matt)
    rust = tone[..., None] * rng.uniform([0.36, 0.16, 0.05], [0.48, 0.22, 0.10])
    return blend(metal, rust, 0.92 * ramp(dry, dry + 0.08, damp))


def tile(rng: Generator, defect: str) -> Scene:
    """A terrazzo tile: chips of stone in cement, ground flat."""
    light = lamp(rng)
    warm, cool, sand, rose = (0.62, 0.60, 0.57), (0.55, 0.57, 0.60), (0.66, 0.61, 0.55), (0.63, 0.55, 0.53)
    cement = rng.choice([warm, cool, sand, rose]) * rng.uniform(0.85, 1.1)
    stone = cement * (1 + 0.25 * clouds(rng, 3, 4))[..., None]
    palette = np.array([(0.16, 0.15, 0.15), (0.90, 0.89, 0.86), (0.34, 0.29, 0.26), (0.55, 0.42, 0.35)])
    for across, share in ((rng.integers(22, 30), 0.5), (rng.integers(11, 16), 0.45)):
        edge, number = chips(rng, across)
        kind, present = rng.integers(4, size=1024), rng.random(1024) < share
        chip = palette[kind[number]] * (1 + 0.3 * clouds(rng, 20, 2))[..., None]
        gap = 0.12 / across
        stone = blend(stone, chip, 0.85 * present[number] * ramp(gap, gap + 0.012, edge))
    glare = np.exp(-((X - 0.9 * light[0]) ** 2 + (Y - 0.9 * light[1]) ** 2) / 0.9)
    stone = stone + 0.1 * glare[..., None] + 0.04 * clouds(rng, 96, 1)[..., None]
    if defect == "crack":
        stone = _fissure(rng, stone)
    elif defect == "oil":
        stone = _oil(rng, stone, light)
    return stone


def _fissure(rng: Generator, stone: Scene) -> Scene:
    """Crack the tile: a long dark line with a branch or two."""
    heading = rng.uniform(0, 2 * np.pi)
    start = (-0.9 * np.cos(heading) + rng.uniform(-0.3, 0.3), -0.9 * np.sin(heading) + rng.uniform(-0.3, 0.3))
    trunk = wander(rng, start, heading, rng.integers(10, 18), stride=0.11, bend=0.55)
    width = rng.uniform(0.026, 0.05)
    distance = distance_to(trunk, X, Y)
    for _ in range(rng.integers(3)):
        fork = trunk[rng.integers(3, len(trunk) - 2)]
        side = heading + rng.choice([-1, 1]) * rng.uniform(0.6, 1.1)
        branch = distance_to(wander(rng, fork, side, rng.integers(3, 6), stride=0.09, bend=0.5), X, Y)
        distance = np.minimum(distance, branch + 0.3 * width)
    distance = distance + 0.02 * clouds(rng, 40, 1)
    stone = blend(stone, 1.25 * stone + 0.03, 0.5 * ramp(2.6 * width, width, distance))
    return blend(stone, (0.07, 0.065, 0.06), 0.92 * ramp(width, 0.25 * width, distance))


def _oil(rng: Generator, stone: Scene, light: Vector) -> Scene:
    """Spill oil: a darker, yellowish patch whose rim shines."""
    x, y = rng.uniform(-0.45, 0.45, 2)
    stretch = rng.uniform(0.75, 1.3)
    depth = rng.uniform(0.28, 0.46) - np.hypot((X - x) * stretch, (Y - y) / stretch) + 0.35 * clouds(rng, 3)
    cover = ramp(0, 0.05, depth)
    stone = blend(stone, stone * rng.uniform([0.52, 0.45, 0.28], [0.68, 0.63, 0.48]), 0.85 * cover)
    _, shine = shade(blur(0.12 * np.sqrt(np.clip(depth, 0, 0.25)), 3), light, gloss=30)
    return stone + (0.25 * shine * cover)[..., None]


OBJECTS: dict[str, Callable[[Generator, str], Scene]] = {
    "bottle": bottle,
    "cable": cable,
    "capsule": capsule,
    "metal_nut": metal_nut,
    "tile": tile,
}


def draw(label: str, number: int) -> NDArray[np.uint8]:
    """Return picture `number` of a class such as `bottle-good`: (64, 64, 3) uint8."""
    rng = np.random.default_rng(int(_hash(label, number), 16))
    part, _, condition = label.partition("-")
    return photograph(rng, OBJECTS[part](rng, condition))


def main() -> None:
    """Draw all pictures, in an order that tells nothing, under names that tell nothing."""
    labels = [f"{part}-{condition}" for part in OBJECTS for condition in ("good", *DEFECTS[part])]
    jobs = [(label, number) for label in labels for number in range(EACH)]
    jobs.sort(key=lambda job: _hash(*job))
    folder = Path(__file__).with_name("parts")
    folder.mkdir(exist_ok=True)
    rows = []
    for count, (label, number) in enumerate(jobs, start=1):
        name = f"part_{count:04d}.jpg"
        picture = Image.fromarray(draw(label, number))
        picture.save(folder / name, quality=QUALITY, subsampling=0, optimize=True)
        rows.append((name, label))
    with folder.with_suffix(".csv").open("w", newline="", encoding="utf-8") as file:
        csv.writer(file, lineterminator="\n").writerows([("file_name", "label"), *rows])


def _hash(label: str, number: int) -> str:
    """Return 64 hexadecimal digits that depend on the picture's name only."""
    return hashlib.sha256(f"{label}/{number}".encode()).hexdigest()


if __name__ == "__main__":
    main()
