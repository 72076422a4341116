"""Where on Earth a scene is: WGS-84, the local frame of east, north and up, and UTM beside it.

The world of a georeferenced scene is in meters, x to the east, y to the north, z up along the ellipsoid's normal
at the origin. Heights are what the receiver calls so: above the ellipsoid or the sea.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

Float64 = npt.NDArray[np.float64]

A, FLATTENING = 6378137.0, 1 / 298.257223563  # WGS-84
E2 = FLATTENING * (2 - FLATTENING)
UTM_REACH = (-80.0, 84.0)  # degrees of latitude
UTM_SCALE, UTM_EAST, UTM_SOUTH = 0.9996, 500_000.0, 10_000_000.0


@dataclass(frozen=True)
class Utm:
    """A place in its zone of the Universal Transverse Mercator grid."""

    zone: int
    north: bool  # hemisphere
    easting: float  # meters
    northing: float
    convergence: float  # degrees from true north to the grid's, positive to the east

    @property
    def epsg(self) -> int:
        """The number of the coordinate system."""
        return (32600 if self.north else 32700) + self.zone


@dataclass(frozen=True)
class Georeference:
    """The origin of a world whose axes are east, north and up, in meters."""

    latitude: float  # degrees
    longitude: float  # degrees
    altitude: float  # meters

    def enu(self, places: Float64) -> Float64:
        """[N, 3] latitude, longitude (degrees), altitude (meters) -> east, north, up in meters."""
        return np.asarray((ecef(places) - self._origin()) @ self._axes().T)

    def geodetic(self, points: Float64) -> Float64:
        """[N, 3] east, north, up in meters -> latitude, longitude (degrees), altitude (meters)."""
        return geodetic(points @ self._axes() + self._origin())

    def enu_from_ecef(self) -> Float64:
        """[4, 4] rigid, from the Earth's frame (`ecef`) to east, north, up; both in meters."""
        matrix = np.eye(4)
        matrix[:3, :3] = self._axes()
        matrix[:3, 3] = -self._axes() @ self._origin()
        return matrix

    def described(self) -> dict[str, Any]:
        """What a mesh's sidecar says, for JSON; of the grid nothing near the poles, where UTM has none."""
        utm = utm_of(self.latitude, self.longitude) if UTM_REACH[0] <= self.latitude <= UTM_REACH[1] else None
        place = f"+lat_0={self.latitude:.10f} +lon_0={self.longitude:.10f} +h_0={self.altitude:.4f}"
        return {
            "origin": {"latitude": self.latitude, "longitude": self.longitude, "altitude": self.altitude},
            "axes": ["east", "north", "up"],
            "unit": "meter",
            "crs": f"local east-north-up tangent frame on WGS 84 (EPSG:4979) at the origin; topocentric, EPSG method"
            f" 9837: +proj=topocentric +ellps=WGS84 {place}",
            "utm_of_origin": utm and {
                "epsg": utm.epsg,
                "easting": utm.easting,
                "northing": utm.northing,
                "convergence_degrees": utm.convergence,
            },
        }

    def _origin(self) -> Float64:
        return ecef(np.array([[self.latitude, self.longitude, self.altitude]]))[0]

    def _axes(self) -> Float64:
        """Rows: east, north, up in the Earth's frame."""
        latitude, longitude = math.radians(self.latitude), math.radians(self.longitude)
        sin, cos, east_sin, east_cos = math.sin(latitude), math.cos(latitude), math.sin(longitude), math.cos(longitude)
        return np.array([
            [-east_sin, east_cos, 0.0],
            [-sin * east_cos, -sin * east_sin, cos],
            [cos * east_cos, cos * east_sin, sin],
        ])  # fmt: skip


def ecef(places: Float64) -> Float64:
    """[N, 3] latitude, longitude (degrees), altitude (meters) -> [N, 3] meters from the Earth's center, fixed axes."""
    latitude, longitude = np.radians(places[:, 0]), np.radians(places[:, 1])
    normal = A / np.sqrt(1 - E2 * np.sin(latitude) ** 2)
    across = (normal + places[:, 2]) * np.cos(latitude)
    up = (normal * (1 - E2) + places[:, 2]) * np.sin(latitude)
    return np.stack([across * np.cos(longitude), across * np.sin(longitude), up], axis=-1)


def geodetic(points: Float64) -> Float64:
    """The inverse of `ecef`, [N, 3] -> [N, 3], in closed form, exact farther than 50 km from the Earth's center.

    Source: Vermeille, "Direct transformation from geocentric to geodetic coordinates" (2002).
    """
    x, y, z = points.T
    across = np.hypot(x, y)
    p, q = (across / A) ** 2, (1 - E2) / A**2 * z**2
    r = (p + q - E2**2) / 6
    s = E2**2 * p * q / (4 * r**3)
    t = np.cbrt(1 + s + np.sqrt(s * (2 + s)))
    u = r * (1 + t + 1 / t)
    v = np.sqrt(u**2 + E2**2 * q)
    w = E2 * (u + v - q) / (2 * v)
    k = np.sqrt(u + v + w**2) - w
    d = k * across / (k + E2)
    length = np.hypot(d, z)
    return np.stack(
        [np.degrees(2 * np.arctan2(z, d + length)), np.degrees(np.arctan2(y, x)), (k + E2 - 1) / k * length], axis=-1
    )


def camera_turn(yaw: float, pitch: float, roll: float) -> Float64:
    """Camera-to-world [3, 3] of a gimbal's angles in degrees; OpenCV axes, world east, north, up.

    yaw: heading of the view from north by east. pitch: 0 level, -90 straight down, where yaw is the heading of the
    picture's upper side. roll: to the right.
    """
    y, p, r = np.radians([yaw, pitch, roll])
    forward = np.array([np.cos(p) * np.sin(y), np.cos(p) * np.cos(y), np.sin(p)])
    right = np.array([np.cos(y), -np.sin(y), 0.0])
    down = np.cross(forward, right)
    return np.stack([np.cos(r) * right + np.sin(r) * down, np.cos(r) * down - np.sin(r) * right, forward], axis=-1)


def utm_of(latitude: float, longitude: float) -> Utm:
    """The place in the zone of its longitude, to a tenth of a millimeter (without Norway's exceptions).

    latitude, longitude: degrees. Source: Kawase, "A general formula for calculating meridian arc length" (2011),
    Krueger's series in n.
    """
    zone = int((longitude + 180) // 6) % 60 + 1
    n = FLATTENING / (2 - FLATTENING)
    radius = A / (1 + n) * (1 + n**2 / 4 + n**4 / 64)
    series = (n / 2 - 2 * n**2 / 3 + 5 * n**3 / 16, 13 * n**2 / 48 - 3 * n**3 / 5, 61 * n**3 / 240)
    from_middle = math.radians(longitude - (6 * zone - 183))
    sine, squash = math.sin(math.radians(latitude)), 2 * math.sqrt(n) / (1 + n)
    t = math.sinh(math.atanh(sine) - squash * math.atanh(squash * sine))
    xi, eta = math.atan2(t, math.cos(from_middle)), math.atanh(math.sin(from_middle) / math.hypot(1, t))
    east, north, along, askew = eta, xi, 1.0, 0.0
    for j, factor in enumerate(series, start=1):
        east += factor * math.cos(2 * j * xi) * math.sinh(2 * j * eta)
        north += factor * math.sin(2 * j * xi) * math.cosh(2 * j * eta)
        along += 2 * j * factor * math.cos(2 * j * xi) * math.cosh(2 * j * eta)
        askew += 2 * j * factor * math.sin(2 * j * xi) * math.sinh(2 * j * eta)
    turned, slope = math.tan(from_middle), math.hypot(1, t)
    convergence = math.atan2(askew * slope + along * t * turned, along * slope - askew * t * turned)
    return Utm(
        zone=zone,
        north=latitude >= 0,
        easting=UTM_EAST + UTM_SCALE * radius * east,
        northing=UTM_SCALE * radius * north + (0.0 if latitude >= 0 else UTM_SOUTH),
        convergence=math.degrees(convergence),
    )


def middle_of(places: Float64) -> Georeference:
    """The place amid others: medians of latitudes, longitudes and altitudes [N, 3], degrees and meters.

    Longitudes are taken as turns from where most of them are, so that places on both sides of the date line have their
    middle there, and not on the other side of the Earth, and single ones that are far off have no say.
    """
    latitude, longitude, altitude = np.asarray(places, np.float64).T
    x, y, _ = np.median(ecef(np.asarray(places, np.float64)), axis=0)
    most = np.degrees(np.arctan2(y, x))
    middle = (most + np.median((longitude - most + 180) % 360 - 180) + 180) % 360 - 180
    return Georeference(float(np.median(latitude)), float(middle), float(np.median(altitude)))
