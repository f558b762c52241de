"""Where the tool point may be: inside the bin, or high above the rim. Two boxes whose union is not convex."""

from robot_bridge.safety.limits import BinGeometry, SafetyLimits

Point = tuple[float, float, float]
Box = tuple[Point, Point]


class Region:
    """The union of the *well*, from the floor of the bin upwards, and the *slab* above the rim.

    The hard region is where the tool may ever be; the soft one, where commands are kept, has a higher floor.

    Args:
        geometry: the bin.
        limits: the distances kept from it.
    """

    def __init__(self, geometry: BinGeometry, limits: SafetyLimits) -> None:
        (low_x, low_y), (high_x, high_y) = geometry.inner_min_m, geometry.inner_max_m
        wall, around = limits.wall_m, geometry.around_m
        top = geometry.rim_z_m + geometry.above_m
        self.slab_z_m = geometry.rim_z_m + limits.rim_clear_m
        floor = geometry.floor_z_m
        self._well: Box = (
            (low_x + wall, low_y + wall, floor + limits.floor_soft_m),
            (high_x - wall, high_y - wall, top),
        )
        self._hard_well: Box = ((low_x + wall, low_y + wall, floor + limits.floor_hard_m), self._well[1])
        self._slab: Box = (
            (low_x - around, low_y - around, self.slab_z_m),
            (high_x + around, high_y + around, top),
        )

    def clamp(self, point_m: Point) -> Point:
        """Returns the nearest point of the soft region."""
        in_well = _nearest(point_m, self._well)
        if in_well == point_m:
            return in_well
        in_slab = _nearest(point_m, self._slab)
        return in_well if _square(point_m, in_well) <= _square(point_m, in_slab) else in_slab

    def outside_m(self, point_m: Point) -> float:
        """Returns the distance [m] to the hard region; 0 inside."""
        (a, b, c), (d, e, f) = self._hard_well
        x, y, z = point_m
        if a <= x <= d and b <= y <= e and c <= z <= f:  # nearly always, and asked at every report
            return 0.0
        nearest = (_nearest(point_m, box) for box in (self._hard_well, self._slab))
        return float(min(_square(point_m, each) for each in nearest) ** 0.5)

    def is_straight_way_free(self, start_m: Point, end_m: Point, slack_m: float = 1e-9) -> bool:
        """Returns whether the straight line between two points of the region passes clear of the bin's walls.

        Below the slab it must run within the well. Both boxes are convex, so that the place where the line crosses
        the slab's lower face decides.
        """
        if (start_m[2] - self.slab_z_m) * (end_m[2] - self.slab_z_m) < 0.0:
            share = (self.slab_z_m - start_m[2]) / (end_m[2] - start_m[2])
            crossing = [a + share * (b - a) for a, b in zip(start_m, end_m, strict=True)]
            return self._over_well(crossing[0], crossing[1], slack_m)
        if min(start_m[2], end_m[2]) >= self.slab_z_m:
            return True
        return all(self._over_well(point[0], point[1], slack_m) for point in (start_m, end_m))

    def _over_well(self, x_m: float, y_m: float, slack_m: float) -> bool:
        low, high = self._well
        return low[0] - slack_m <= x_m <= high[0] + slack_m and low[1] - slack_m <= y_m <= high[1] + slack_m


def _nearest(point: Point, box: Box) -> Point:
    (a, b, c), (d, e, f) = box
    x, y, z = point
    return (min(max(x, a), d), min(max(y, b), e), min(max(z, c), f))


def _square(first: Point, second: Point) -> float:
    x, y, z = first[0] - second[0], first[1] - second[1], first[2] - second[2]
    return x * x + y * y + z * z
