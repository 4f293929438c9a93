"""Where a ray meets MuJoCo's primitive shapes, and their normals there: closed forms, compiled.

Everything is in the geom's own frame and in MuJoCo's conventions: `size` (a, b, c) is what `geom_size` holds, a plane
is met on its upper side only, and a ray that begins inside a shape meets it where it leaves. Directions need not have
unit length: a hit is at origin + t * direction.
"""

from __future__ import annotations

import mujoco
from numba import njit

__all__ = ["PRIMITIVES", "meet", "normal_at"]

_KIND = mujoco.mjtGeom
PLANE, SPHERE, CAPSULE = int(_KIND.mjGEOM_PLANE), int(_KIND.mjGEOM_SPHERE), int(_KIND.mjGEOM_CAPSULE)
ELLIPSOID, CYLINDER, BOX = int(_KIND.mjGEOM_ELLIPSOID), int(_KIND.mjGEOM_CYLINDER), int(_KIND.mjGEOM_BOX)
PRIMITIVES = (PLANE, SPHERE, CAPSULE, ELLIPSOID, CYLINDER, BOX)
_TINY = 1e-12


@njit(cache=True, nogil=True)
def meet(kind, size, ox, oy, oz, dx, dy, dz):
    """The least t >= 0 at which a ray meets a shape of one of the `PRIMITIVES`, else -1."""
    a, b, c = size[0], size[1], size[2]
    if kind == BOX:
        return _box(a, b, c, ox, oy, oz, dx, dy, dz)
    if kind == PLANE:
        return _plane(a, b, ox, oy, oz, dx, dy, dz)
    if kind == CAPSULE:
        return _capsule(a, b, ox, oy, oz, dx, dy, dz)
    if kind == CYLINDER:
        return _cylinder(a, b, ox, oy, oz, dx, dy, dz)
    if kind == ELLIPSOID:
        return _sphere(1.0, ox / a, oy / b, oz / c, dx / a, dy / b, dz / c)
    return _sphere(a, ox, oy, oz, dx, dy, dz)


@njit(cache=True, nogil=True)
def normal_at(kind, size, x, y, z):
    """The outward normal, of any length, at a point of a shape's surface."""
    if kind == BOX:
        u, v, w = abs(x) - size[0], abs(y) - size[1], abs(z) - size[2]
        if w >= u and w >= v:
            return 0.0, 0.0, z
        return (x, 0.0, 0.0) if u >= v else (0.0, y, 0.0)
    if kind == PLANE:
        return 0.0, 0.0, 1.0
    if kind == CAPSULE:
        return x, y, z - max(-size[1], min(size[1], z))
    if kind == CYLINDER:
        if abs(z) - size[1] > (x * x + y * y) ** 0.5 - size[0]:
            return 0.0, 0.0, z
        return x, y, 0.0
    if kind == ELLIPSOID:
        return x / size[0] ** 2, y / size[1] ** 2, z / size[2] ** 2
    return x, y, z


@njit(cache=True, nogil=True)
def _box(a, b, c, ox, oy, oz, dx, dy, dz):
    ux = 1.0 / (dx if abs(dx) > _TINY else _TINY)
    uy = 1.0 / (dy if abs(dy) > _TINY else _TINY)
    uz = 1.0 / (dz if abs(dz) > _TINY else _TINY)
    x, y, z = -ox * ux, -oy * uy, -oz * uz  # t in the middle of each pair of faces
    wx, wy, wz = a * abs(ux), b * abs(uy), c * abs(uz)
    enter = max(x - wx, max(y - wy, z - wz))
    leave = min(x + wx, min(y + wy, z + wz))
    if enter > leave or leave < 0.0:
        return -1.0
    return enter if enter >= 0.0 else leave


@njit(cache=True, nogil=True)
def _plane(a, b, ox, oy, oz, dx, dy, dz):
    if dz > -_TINY:
        return -1.0
    t = -oz / dz
    if t < 0.0 or (a > 0.0 and abs(ox + t * dx) > a) or (b > 0.0 and abs(oy + t * dy) > b):
        return -1.0
    return t


@njit(cache=True, nogil=True)
def _sphere(r, ox, oy, oz, dx, dy, dz):
    square, half = dx * dx + dy * dy + dz * dz, ox * dx + oy * dy + oz * dz
    under = half * half - square * (ox * ox + oy * oy + oz * oz - r * r)
    if under < 0.0:
        return -1.0
    root = under**0.5
    first, last = (-half - root) / square, (-half + root) / square
    return first if first >= 0.0 else (last if last >= 0.0 else -1.0)


@njit(cache=True, nogil=True)
def _least(t, other):
    """The lesser of two hits, of which negative ones are none."""
    return other if other >= 0.0 and (t < 0.0 or other < t) else t


@njit(cache=True, nogil=True)
def _side(r, h, ox, oy, oz, dx, dy, dz):
    """The curved side of an upright cylinder, open at both ends."""
    square, half = dx * dx + dy * dy, ox * dx + oy * dy
    under = half * half - square * (ox * ox + oy * oy - r * r)
    t = -1.0
    if under >= 0.0 and square > _TINY * _TINY:
        root = under**0.5
        first, last = (-half - root) / square, (-half + root) / square
        if first >= 0.0 and abs(oz + first * dz) <= h:
            t = first
        elif last >= 0.0 and abs(oz + last * dz) <= h:
            t = last
    return t


@njit(cache=True, nogil=True)
def _cylinder(r, h, ox, oy, oz, dx, dy, dz):
    t = _side(r, h, ox, oy, oz, dx, dy, dz)
    if abs(dz) > _TINY:
        for end in (-h, h):
            flat = (end - oz) / dz
            x, y = ox + flat * dx, oy + flat * dy
            if x * x + y * y <= r * r:
                t = _least(t, flat)
    return t


@njit(cache=True, nogil=True)
def _capsule(r, h, ox, oy, oz, dx, dy, dz):
    t = _side(r, h, ox, oy, oz, dx, dy, dz)
    square = dx * dx + dy * dy + dz * dz
    for end in (-h, h):
        z = oz - end
        half = ox * dx + oy * dy + z * dz
        under = half * half - square * (ox * ox + oy * oy + z * z - r * r)
        if under < 0.0:
            continue
        root = under**0.5
        for way in (-root, root):
            at = (way - half) / square
            if (z + at * dz) * end >= 0.0:  # on the round end, not within the side
                t = _least(t, at)
    return t
