"""Draw the source pictures of chapter 07: made-up objects with a finish and, mostly, some damage.

Twelve outlines, eight finishes and four conditions, 64 × 64 pixels. None of the outlines is one of the
five objects of the drawn parts (bottle, cable, capsule, metal nut, tile). Everything is drawn in float64
with random numbers of a generator on the CPU, so that the rounded pixels are the same everywhere.
"""

import math
from collections.abc import Callable

import torch
import torch.nn.functional as F

SIZE = 64
Outline = Callable[[torch.Tensor, torch.Tensor], torch.Tensor]


def _box(u: torch.Tensor, v: torch.Tensor, width: float, height: float) -> torch.Tensor:
    return torch.maximum(u.abs() - width, v.abs() - height)


def _disc(u: torch.Tensor, v: torch.Tensor, radius: float) -> torch.Tensor:
    return torch.hypot(u, v) - radius


def _wave(u: torch.Tensor, v: torch.Tensor, radius: float, height: float, count: int) -> torch.Tensor:
    return torch.hypot(u, v) - radius - height * torch.cos(count * torch.atan2(v, u))


# Coordinates (u, v) in the object's own frame -> about the distance to its edge, negative inside.
OUTLINES: dict[str, Outline] = {
    "square": lambda u, v: _box(u, v, 0.6, 0.6),
    "plate": lambda u, v: _box(u, v, 0.8, 0.4),
    "diamond": lambda u, v: u.abs() + 1.4 * v.abs() - 0.85,
    "triangle": lambda u, v: torch.maximum(v - 0.5, 0.866 * u.abs() - 0.5 * v - 0.42),
    "cross": lambda u, v: torch.minimum(_box(u, v, 0.78, 0.24), _box(u, v, 0.24, 0.78)),
    "star": lambda u, v: _wave(u, v, 0.52, 0.2, 5),
    "flower": lambda u, v: _wave(u, v, 0.58, 0.12, 7),
    "crescent": lambda u, v: torch.maximum(_disc(u, v, 0.75), -_disc(u - 0.4, v, 0.5)),
    "keyhole": lambda u, v: torch.minimum(_disc(u, v + 0.3, 0.38), _box(u, v - 0.25, 0.18, 0.55)),
    "dumbbell": lambda u, v: torch.minimum(_disc(u.abs() - 0.45, v, 0.32), _box(u, v, 0.45, 0.12)),
    "bracket": lambda u, v: torch.minimum(_box(u, v + 0.5, 0.7, 0.2), _box(u + 0.5, v, 0.2, 0.7)),
    "arrow": lambda u, v: torch.minimum(
        _box(u + 0.3, v, 0.45, 0.18), torch.maximum(-u, u + 1.2 * v.abs() - 0.75)
    ),
}
FINISHES = ("plain", "brushed", "speckled", "striped", "chequered", "turned", "cloudy", "dimpled")
CONDITIONS = ("intact", "cracked", "stained", "broken")
HEADS = (len(OUTLINES), len(FINISHES), len(CONDITIONS))  # classes of the three questions


def draw(count: int, seed: int) -> tuple[torch.Tensor, torch.Tensor]:
    """Return pictures (count, 3, 64, 64) uint8 and their outline, finish, condition (count, 3) int64.

    The same count and seed give the same pictures.
    """
    pen = _Pen(count, seed)
    labels = torch.stack([torch.randint(n, (count,), generator=pen.generator) for n in HEADS], dim=1)
    outline, finish, condition = labels.T
    u, v = pen.pose()

    edge = torch.empty(count, SIZE, SIZE, dtype=torch.float64)
    for number, distance in enumerate(OUTLINES.values()):
        edge[outline == number] = distance(u, v)[outline == number]
    edge = torch.where(_is(condition, "broken"), torch.maximum(edge, pen.bite(u, v)), edge)

    surface = pen.paint(u, v, finish) + pen.light(edge)
    surface = _mix(surface, pen.dark_or_bright(), pen.crack() * _is(condition, "cracked"))
    surface = _mix(surface, pen.colour(), pen.stain(u, v) * _is(condition, "stained"))

    mask = torch.sigmoid(-45 * edge)
    fills_frame = pen.rare(0.15) & ~_is(condition, "broken")  # a close-up, as of a tile
    picture = _mix(pen.backdrop(mask), surface, torch.where(fills_frame, 1.0, mask))
    return pen.photograph(picture), labels


class _Pen:
    """Random pieces of `count` pictures; every piece has its own value for each picture."""

    def __init__(self, count: int, seed: int) -> None:
        self.count = count
        self.generator = torch.Generator().manual_seed(seed)
        line = torch.linspace(-1, 1, SIZE, dtype=torch.float64)
        self.y, self.x = torch.meshgrid(line, line, indexing="ij")

    def uniform(self, low: float, high: float, channels: int = 0) -> torch.Tensor:
        """Numbers (count, 1, 1), or (count, channels, 1, 1)."""
        shape = (self.count, channels, 1, 1) if channels else (self.count, 1, 1)
        return low + (high - low) * torch.rand(shape, generator=self.generator, dtype=torch.float64)

    def rare(self, share: float) -> torch.Tensor:
        """True for that share of the pictures: (count, 1, 1)."""
        return self.uniform(0, 1) < share

    def noise(self, cells: int | tuple[int, int], channels: int = 1) -> torch.Tensor:
        """Smooth noise, in the main from 0 to 1, with so many cells across: (count, channels, 64, 64)."""
        cells = (cells, cells) if isinstance(cells, int) else cells
        grid = torch.rand(self.count, channels, *cells, generator=self.generator, dtype=torch.float64)
        return F.interpolate(grid, size=(SIZE, SIZE), mode="bicubic", align_corners=False)

    def colour(self) -> torch.Tensor:
        """Any colour, four times in ten a grey: (count, 3, 1, 1)."""
        colour = self.uniform(0.05, 0.95, channels=3)
        return torch.where(self.rare(0.4)[:, None], colour.mean(1, keepdim=True), colour)

    def dark_or_bright(self) -> torch.Tensor:
        return torch.where(self.rare(0.7)[:, None], 0.15 * self.colour(), 1 - 0.15 * self.colour())

    def pose(self) -> tuple[torch.Tensor, torch.Tensor]:
        """Coordinates u, v (count, 64, 64) in the object's frame: turned, shifted, scaled, stretched."""
        angle, scale = self.uniform(-math.pi, math.pi), self.uniform(0.75, 1.15)
        x = (self.x - self.uniform(-0.15, 0.15)) / scale
        y = (self.y - self.uniform(-0.15, 0.15)) / scale
        u, v = x * angle.cos() + y * angle.sin(), y * angle.cos() - x * angle.sin()
        return u * self.uniform(0.85, 1.15), v * self.uniform(0.85, 1.15)

    def paint(self, u: torch.Tensor, v: torch.Tensor, finish: torch.Tensor) -> torch.Tensor:
        """The object's colour with its finish: (count, 3, 64, 64)."""
        f = self.uniform(0.7, 1.3)
        patterns = {
            "plain": torch.zeros_like(u),
            "brushed": self.noise((3, SIZE))[:, 0] - 0.5,
            "speckled": ((self.noise(26)[:, 0] - 0.62) * 5).clamp(0, 1) - 0.3,
            "striped": 0.5 * torch.sin(30 * f * u),
            "chequered": 0.5 * torch.sign(torch.sin(14 * f * u) * torch.sin(14 * f * v)),
            "turned": 0.5 * torch.sin(36 * f * torch.hypot(u, v)),
            "cloudy": 1.6 * (self.noise(7)[:, 0] - 0.5),
            "dimpled": 0.5 * torch.cos(22 * f * u) * torch.cos(22 * f * v),
        }
        pattern = torch.stack([patterns[name] for name in FINISHES], dim=1)
        pattern = pattern[torch.arange(self.count), finish]
        return self.colour() * 0.8 + 0.1 + self.uniform(0.12, 0.37, channels=1) * pattern[:, None]

    def light(self, edge: torch.Tensor) -> torch.Tensor:
        """A rounded rim lit from one side, and a soft reflection: (count, 1, 64, 64)."""
        angle = self.uniform(0, 2 * math.pi)
        height = (-edge).clamp(0, 0.18) / 0.18
        slope = (height - height.roll(1, 2)) * angle.cos() + (height - height.roll(1, 1)) * angle.sin()
        away = (self.x - 0.4 * angle.cos()) ** 2 + (self.y - 0.4 * angle.sin()) ** 2
        return (self.uniform(0, 1.2) * slope + self.uniform(0, 0.35) * torch.exp(-away / 0.15))[:, None]

    def bite(self, u: torch.Tensor, v: torch.Tensor) -> torch.Tensor:
        """Where a piece with a ragged edge is missing, positive: (count, 64, 64)."""
        angle, radius = self.uniform(0, 2 * math.pi), self.uniform(0.35, 0.75)
        away = torch.hypot(u - radius * angle.cos(), v - radius * angle.sin())
        return self.uniform(0.16, 0.28) - away + 0.15 * (self.noise(9)[:, 0] - 0.5)

    def stain(self, u: torch.Tensor, v: torch.Tensor) -> torch.Tensor:
        """How far a stain covers each pixel, 0 to 1: (count, 64, 64)."""
        angle, radius = self.uniform(0, 2 * math.pi), self.uniform(0.1, 0.45)
        away = torch.hypot(u - radius * angle.cos(), v - radius * angle.sin())
        inside = self.uniform(0.14, 0.34) - away + 0.4 * (self.noise(9)[:, 0] - 0.5)
        return torch.sigmoid(30 * inside) * self.uniform(0.6, 1)

    def crack(self) -> torch.Tensor:
        """How far a wandering line covers each pixel, 0 to 1: (count, 64, 64)."""
        angle = self.uniform(0, math.pi)
        along = self.x * angle.cos() + self.y * angle.sin()
        across = self.y * angle.cos() - self.x * angle.sin()
        path = self.noise((1, 7))[:, 0, 0] * 2 - 1  # (count, 64): the line's height along the picture
        column = ((along.clamp(-1, 1) + 1) / 2 * (SIZE - 1)).long()
        height = torch.gather(path[:, None].expand(-1, SIZE, -1), 2, column)
        away = (across - self.uniform(-0.3, 0.3) - 0.3 * height).abs()
        ends = (along - self.uniform(-0.25, 0.25)).abs() < self.uniform(0.35, 0.85)
        return torch.exp(-((away / self.uniform(0.018, 0.048)) ** 2)) * ends

    def backdrop(self, mask: torch.Tensor) -> torch.Tensor:
        """A table of one uneven colour, with the object's shadow: (count, 3, 64, 64)."""
        shadow = F.avg_pool2d(mask.roll((3, 3), (1, 2))[:, None], 9, stride=1, padding=4)
        table = self.colour() + 0.2 * (self.noise(4, channels=3) - 0.5)
        return table * (1 - self.uniform(0, 0.5, channels=1) * shadow)

    def photograph(self, picture: torch.Tensor) -> torch.Tensor:
        """Exposure, colour cast, blur and noise of a camera, as uint8."""
        picture = picture * self.uniform(0.9, 1.1, channels=3) + self.uniform(-0.1, 0.1, channels=1)
        blurred = F.avg_pool2d(F.pad(picture, (1, 1, 1, 1), mode="replicate"), 3, stride=1)
        picture = _mix(picture, blurred, self.uniform(0, 0.8))
        grain = torch.randn(picture.shape, generator=self.generator, dtype=torch.float64)
        picture = picture + self.uniform(0, 0.06, channels=1) * grain
        return (picture.clamp(0, 1) * 255).round().to(torch.uint8)


def _mix(below: torch.Tensor, above: torch.Tensor, opacity: torch.Tensor) -> torch.Tensor:
    """`above` painted over `below`; opacity (count, 64, 64) or (count, 1, 1)."""
    opacity = opacity[:, None]
    return below * (1 - opacity) + above * opacity


def _is(condition: torch.Tensor, name: str) -> torch.Tensor:
    return (condition == CONDITIONS.index(name))[:, None, None]
