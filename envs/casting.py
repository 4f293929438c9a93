"""Compiled kernels of the ray caster: projecting, tracing, shadows, edges (see `envs.raycast`).

A *picture* f is one camera's view of a state, state f // cameras. Geoms are numbered 0 to K - 1 among those that are
drawn. Every kernel works on the items `start` to `stop` and computes each on its own, so that ranges may run on any
number of threads with the same result. Of a ray r: `frame[r]` is its picture, `direction[r]` has unit length, `dist[r]`
is its length in metres (-1: nothing was hit), `depth[r]` the same along the camera's axis (inf), `geom[r]` the geom
(-1), `normal[r]` the outward unit normal; `near[r]` says that it passes a geom that only MuJoCo can intersect.
"""

from __future__ import annotations

import numpy as np
from numba import njit

from envs.intersection import PLANE, meet, normal_at

__all__ = ["ASKED", "edges", "obscure", "project", "trace"]

ASKED = -1  # kind of a geom that MuJoCo must be asked about: a mesh, a height field, a distance field
_MARGIN = 1e-3  # pixels around a geom's rectangle, for rounding
_LIFT = 2e-4  # metres above a surface where its shadow rays begin


@njit(cache=True, nogil=True)
def project(start, stop, cameras, lens, view, geoms, pos, mat, local, rect, close, order):
    """For each picture and geom: the rays in the geom's frame, the pixels it may cover, its least depth.

    `lens` is (width, height, tangents of half the vertical fields of view [cameras]), `view` (eye [F, 3], axes right,
    up, backward as columns [F, 3, 3]), `geoms` (kind [K], size, centre and half sizes of the bounding box [K, 3]),
    `pos` [S, K, 3] and `mat` [S, K, 9] place the geoms. Writes `local` [F, K, 12]: camera position, and what the ray
    direction is made of: right, up, forward; `rect` [F, K, 4]: columns and rows, from and to; `close` [F, K] metres;
    `order` [F, K]: the geoms by `close`.
    """
    width, height, tangents = lens
    eye, turn = view
    kind, _, centre, half = geoms
    for f in range(start, stop):
        s, scale = f // cameras, height / (2.0 * tangents[f % cameras])
        for k in range(kind.shape[0]):
            m, own = mat[s, k], local[f, k]
            for j in range(3):
                own[j] = own[3 + j] = own[6 + j] = own[9 + j] = 0.0
                for i in range(3):
                    own[j] += m[3 * i + j] * (eye[f, i] - pos[s, k, i])
                    own[3 + j] += m[3 * i + j] * turn[f, i, 0]
                    own[6 + j] += m[3 * i + j] * turn[f, i, 1]
                    own[9 + j] -= m[3 * i + j] * turn[f, i, 2]
            box, low, high = rect[f, k], np.inf, -np.inf
            box[0], box[1], box[2], box[3] = np.inf, -np.inf, np.inf, -np.inf
            for corner in range(8):
                x = centre[k, 0] + half[k, 0] * (1.0 if corner & 1 else -1.0) - own[0]
                y = centre[k, 1] + half[k, 1] * (1.0 if corner & 2 else -1.0) - own[1]
                z = centre[k, 2] + half[k, 2] * (1.0 if corner & 4 else -1.0) - own[2]
                ahead = x * own[9] + y * own[10] + z * own[11]
                low, high = min(low, ahead), max(high, ahead)
                per = scale / max(ahead, 1e-9)
                column = 0.5 * width + per * (x * own[3] + y * own[4] + z * own[5])
                row = 0.5 * height - per * (x * own[6] + y * own[7] + z * own[8])
                box[0], box[1] = min(box[0], column - _MARGIN), max(box[1], column + _MARGIN)
                box[2], box[3] = min(box[2], row - _MARGIN), max(box[3], row + _MARGIN)
            close[f, k] = low - 1e-6
            if kind[k] == PLANE:
                low, high, close[f, k] = 0.0, 1.0, 0.0
            if low < 1e-6:  # reaches behind the camera: may be anywhere, or nowhere if it is behind as a whole
                box[0], box[1], box[2], box[3] = -np.inf, np.inf, -np.inf, np.inf
                if high < 0.0:
                    box[0], box[1] = np.inf, -np.inf
        for k in range(kind.shape[0]):  # sorted by insertion: compiles in a fraction of the time of numpy's
            j = k
            while j > 0 and close[f, order[f, j - 1]] > close[f, k]:
                order[f, j] = order[f, j - 1]
                j -= 1
            order[f, j] = k


@njit(cache=True, nogil=True)
def trace(start, stop, pixel, sample, lens, cameras, turn, geoms, mat, local, rect, close, order,
          frame, direction, dist, depth, geom, normal, near):  # fmt: skip
    """First hits of rays through `sample` [J, 2] (column and row within a pixel) of each of the pixels `pixel`.

    Pixels are numbered over all pictures, in ascending order; pixel i has the rays i * J to i * J + J - 1. The other
    arguments are those of `project`.
    """
    width, height, tangents = lens
    kind, size, _, _ = geoms
    active, count, shown = np.empty(kind.shape[0], np.int64), 0, -1
    for i in range(start, stop):
        line, column = pixel[i] // width, pixel[i] % width
        f, row = line // height, line % height
        unit = 2.0 * tangents[f % cameras] / height
        if line != shown:  # which geoms this row of pixels may show, the nearest first
            shown, count = line, 0
            for k in order[f]:
                if rect[f, k, 2] <= row + 1.0 and rect[f, k, 3] >= row and rect[f, k, 0] <= rect[f, k, 1]:
                    active[count] = k
                    count += 1
        for j in range(sample.shape[0]):
            u, v = column + sample[j, 0], row + sample[j, 1]
            x, y = (u - 0.5 * width) * unit, (0.5 * height - v) * unit
            best, hit, ask = np.inf, -1, False
            for a in range(count):
                k = active[a]
                if close[f, k] > best:
                    break
                if u < rect[f, k, 0] or u > rect[f, k, 1]:
                    continue
                if kind[k] == ASKED:
                    ask = True
                    continue
                own = local[f, k]
                t = meet(
                    kind[k], size[k], own[0], own[1], own[2],
                    own[9] + x * own[3] + y * own[6],
                    own[10] + x * own[4] + y * own[7],
                    own[11] + x * own[5] + y * own[8],
                )  # fmt: skip
                if t >= 0.0 and t < best:
                    best, hit = t, k
            r, length = i * sample.shape[0] + j, (x * x + y * y + 1.0) ** 0.5
            frame[r], geom[r], depth[r], near[r] = f, hit, best, ask
            dist[r] = best * length if hit >= 0 else -1.0
            for c in range(3):
                direction[r, c] = (turn[f, c, 0] * x + turn[f, c, 1] * y - turn[f, c, 2]) / length
            if hit >= 0:
                own, m = local[f, hit], mat[f // cameras, hit]
                nx, ny, nz = normal_at(
                    kind[hit], size[hit],
                    own[0] + best * (own[9] + x * own[3] + y * own[6]),
                    own[1] + best * (own[10] + x * own[4] + y * own[7]),
                    own[2] + best * (own[11] + x * own[5] + y * own[8]),
                )  # fmt: skip
                length = max((nx * nx + ny * ny + nz * nz) ** 0.5, 1e-12)
                for c in range(3):
                    normal[r, c] = (m[3 * c] * nx + m[3 * c + 1] * ny + m[3 * c + 2] * nz) / length


@njit(cache=True, nogil=True)
def obscure(start, stop, cameras, eye, geoms, reach2, pos, mat, frame, direction, dist, geom, normal, beam, lpos, ldir,
            start_at, towards, reach, near, light):  # fmt: skip
    """Shadow rays from hits to a light at `lpos` [S, 3] that points along `ldir` (`beam` 1: directional).

    `reach2` [K] are squared radii around the geoms' positions. Writes `light` [R]: 0 in the shadow, else 1; the rays
    that MuJoCo must be asked about as well are `near`, from `start_at` along `towards` as far as `reach`.
    """
    kind, size, _, _ = geoms
    for r in range(start, stop):
        s = frame[r] // cameras
        light[r], near[r] = 1.0, False
        if geom[r] < 0:
            continue
        px = eye[frame[r], 0] + dist[r] * direction[r, 0] + _LIFT * normal[r, 0]
        py = eye[frame[r], 1] + dist[r] * direction[r, 1] + _LIFT * normal[r, 1]
        pz = eye[frame[r], 2] + dist[r] * direction[r, 2] + _LIFT * normal[r, 2]
        if beam == 1:
            lx, ly, lz, far = -ldir[s, 0], -ldir[s, 1], -ldir[s, 2], 1e9
        else:
            lx, ly, lz = lpos[s, 0] - px, lpos[s, 1] - py, lpos[s, 2] - pz
            far = max((lx * lx + ly * ly + lz * lz) ** 0.5, 1e-9)
            lx, ly, lz = lx / far, ly / far, lz / far
        if lx * normal[r, 0] + ly * normal[r, 1] + lz * normal[r, 2] <= 0.0:
            continue  # the surface looks away: shading gives it nothing anyhow
        ask = False
        for k in range(kind.shape[0]):
            x, y, z = pos[s, k, 0] - px, pos[s, k, 1] - py, pos[s, k, 2] - pz
            if kind[k] != PLANE:
                along = x * lx + y * ly + z * lz
                if along * max(along, 0.0) < x * x + y * y + z * z - reach2[k]:
                    continue
                if kind[k] == ASKED:
                    ask = True
                    continue
            m = mat[s, k]
            t = meet(
                kind[k], size[k],
                -(m[0] * x + m[3] * y + m[6] * z), -(m[1] * x + m[4] * y + m[7] * z), -(m[2] * x + m[5] * y + m[8] * z),
                m[0] * lx + m[3] * ly + m[6] * lz, m[1] * lx + m[4] * ly + m[7] * lz, m[2] * lx + m[5] * ly + m[8] * lz,
            )  # fmt: skip
            if t >= 0.0 and t < far:
                light[r] = 0.0
                break
        if ask and light[r] > 0.0:
            near[r], reach[r] = True, far
            start_at[r, 0], start_at[r, 1], start_at[r, 2] = px, py, pz
            towards[r, 0], towards[r, 1], towards[r, 2] = lx, ly, lz


@njit(cache=True, nogil=True)
def edges(height, width, first, last, colour, geom, threshold, out):
    """Pixels of the pictures `first` to `last` that show another geom or colour than a direct neighbour.

    `colour` [n * h * w, 3]; writes their numbers to `out` in order and returns how many there are.
    """
    count = 0
    for f in range(first, last):
        for y in range(height):
            for x in range(width):
                here = (f * height + y) * width + x
                for side in range(4):
                    i, j = y + (side == 0) - (side == 1), x + (side == 2) - (side == 3)
                    if i < 0 or j < 0 or i >= height or j >= width:
                        continue
                    there = (f * height + i) * width + j
                    differs = geom[here] != geom[there]
                    for k in range(3):
                        differs |= abs(colour[here, k] - colour[there, k]) > threshold
                    if differs:
                        out[count] = here
                        count += 1
                        break
    return count
