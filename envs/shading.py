"""Numba kernels of the ray caster: aiming, culling, packing and shading (see `envs.raycast`).

Every kernel works on the rays `start` to `stop` of flat arrays: `frame[r]` is the picture of ray `r`,
`dist[r]` its length in metres (-1 for nothing hit), `geom[r]` the geom (-1), `normal[r]` the outward normal,
`near[r]` whether it passes a geom's bounding sphere and MuJoCo must be asked. Directions have unit length.
Each ray is computed on its own, so ranges may run on any number of threads with the same result.
"""

from __future__ import annotations

import numpy as np
from numba import njit

single = np.float32
CONTRAST = 0.05  # relative contrast of the checker on a plane without a texture


@njit(cache=True, nogil=True)
def _passes(ox, oy, oz, dx, dy, dz, spheres):
    """Whether a ray meets one of the `spheres` [4, G] (centre, squared radius); single precision."""
    met = 0
    for g in range(spheres.shape[1]):
        cx, cy, cz = spheres[0, g] - ox, spheres[1, g] - oy, spheres[2, g] - oz
        along = cx * dx + cy * dy + cz * dz
        outside = cx * cx + cy * cy + cz * cz - spheres[3, g]  # negative: the ray starts inside
        met += np.int32(1) if along * max(along, np.float32(0.0)) >= outside else np.int32(0)
    return met > 0


@njit(cache=True, nogil=True)
def _meets_plane(ox, oy, oz, dx, dy, dz, pos, mat, size):
    """Distance to one plane's upper side, or -1: as MuJoCo's, zero `size` is endless."""
    lz = mat[2] * dx + mat[5] * dy + mat[8] * dz
    if lz > -1e-9:
        return -1.0
    x, y, z = ox - pos[0], oy - pos[1], oz - pos[2]
    t = -(mat[2] * x + mat[5] * y + mat[8] * z) / lz
    if t < 0.0:
        return -1.0
    x, y, z = x + t * dx, y + t * dy, z + t * dz
    u, v = mat[0] * x + mat[3] * y + mat[6] * z, mat[1] * x + mat[4] * y + mat[7] * z
    if (size[0] > 0.0 and abs(u) > size[0]) or (size[1] > 0.0 and abs(v) > size[1]):
        return -1.0
    return t


@njit(cache=True, nogil=True)
def aim(start, stop, pixel, frame, lens, eye, turn, spheres, planes,
        origin, direction, near, dist, geom, normal):  # fmt: skip
    """Rays through image points `pixel` [R, 2] (column, row); those that can only meet planes are answered.

    `lens` is (width, height, tangent of half the vertical field of view); `eye` [F, 3] and `turn` [F, 3, 3]
    place the camera; `spheres` is [F, 4, G], `planes` (id [P], pos, mat [F, P, 9], size).
    """
    width, height, tangent = lens
    pid, ppos, pmat, psize = planes
    for r in range(start, stop):
        f = frame[r]
        x = (2.0 * pixel[r, 0] - width) / height * tangent
        y = (1.0 - 2.0 * pixel[r, 1] / height) * tangent
        size = (x * x + y * y + 1.0) ** 0.5
        for k in range(3):
            direction[r, k] = (turn[f, k, 0] * x + turn[f, k, 1] * y - turn[f, k, 2]) / size
            origin[r, k] = eye[f, k]
            normal[r, k] = 0.0
        ox, oy, oz = origin[r, 0], origin[r, 1], origin[r, 2]
        dx, dy, dz = direction[r, 0], direction[r, 1], direction[r, 2]
        dist[r], geom[r] = -1.0, -1
        near[r] = _passes(single(ox), single(oy), single(oz), single(dx), single(dy), single(dz), spheres[f])
        if near[r]:
            continue
        for p in range(pid.shape[0]):
            t = _meets_plane(ox, oy, oz, dx, dy, dz, ppos[f, p], pmat[f, p], psize[p])
            if t >= 0.0 and (dist[r] < 0.0 or t < dist[r]):
                dist[r], geom[r] = t, pid[p]
                normal[r, 0], normal[r, 1], normal[r, 2] = pmat[f, p, 2], pmat[f, p, 5], pmat[f, p, 8]


@njit(cache=True, nogil=True)
def obscure(start, stop, origin, direction, frame, dist, geom, normal, beam, pos, aimed, spheres, planes,
            start_at, towards, reach, near, light):  # fmt: skip
    """Shadow rays from hits to a light at `pos` [F, 3] that points along `aimed` (`beam` 1: directional).

    Writes `light` [R]: 0 where a plane is in the way, else 1; the rays that MuJoCo must be asked are `near`.
    """
    pid, ppos, pmat, psize = planes
    for r in range(start, stop):
        f = frame[r]
        light[r], near[r] = 1.0, False
        if geom[r] < 0:
            continue
        px = origin[r, 0] + dist[r] * direction[r, 0] + 2e-4 * normal[r, 0]
        py = origin[r, 1] + dist[r] * direction[r, 1] + 2e-4 * normal[r, 1]
        pz = origin[r, 2] + dist[r] * direction[r, 2] + 2e-4 * normal[r, 2]
        if beam == 1:
            lx, ly, lz, far = -aimed[f, 0], -aimed[f, 1], -aimed[f, 2], 1e9
        else:
            lx, ly, lz = pos[f, 0] - px, pos[f, 1] - py, pos[f, 2] - pz
            far = max((lx * lx + ly * ly + lz * lz) ** 0.5, 1e-9)
            lx, ly, lz = lx / far, ly / far, lz / far
        if lx * normal[r, 0] + ly * normal[r, 1] + lz * normal[r, 2] <= 0.0:
            continue  # the surface looks away: shading gives it nothing anyhow
        for p in range(pid.shape[0]):
            t = _meets_plane(px, py, pz, lx, ly, lz, ppos[f, p], pmat[f, p], psize[p])
            if t >= 0.0 and t < far:
                light[r] = 0.0
        if light[r] == 0.0:
            continue
        if _passes(single(px), single(py), single(pz), single(lx), single(ly), single(lz), spheres[f]):
            near[r], reach[r] = True, far
            start_at[r, 0], start_at[r, 1], start_at[r, 2] = px, py, pz
            towards[r, 0], towards[r, 1], towards[r, 2] = lx, ly, lz


@njit(cache=True, nogil=True)
def pack(rays, near, frame, unit, index, picture):
    """Assigns the `near` rays to units of at most `unit` rays of one picture, in order.

    Writes `index` [units, unit]: the rays of each unit, -1 where there is none, and `picture` [units];
    returns the number of units.
    """
    units, fill = 0, unit
    for r in range(rays):
        if not near[r]:
            continue
        if fill == unit or picture[units - 1] != frame[r]:
            if units:
                index[units - 1, fill:] = -1
            picture[units] = frame[r]
            units, fill = units + 1, 0
        index[units - 1, fill] = r
        fill += 1
    if units:
        index[units - 1, fill:] = -1
    return units


@njit(cache=True, nogil=True)
def gather(start, stop, index, origin, direction, pnt, vec):
    """The rays of the units `start` to `stop`; what fills up a unit looks away from everything."""
    for i in range(start, stop):
        for j in range(index.shape[1]):
            r = index[i, j]
            for k in range(3):
                pnt[i, j, k] = origin[r, k] if r >= 0 else 1e6
                vec[i, j, k] = direction[r, k] if r >= 0 else (1.0 if k == 2 else 0.0)


@njit(cache=True, nogil=True)
def scatter(start, stop, index, found_dist, found_geom, found_normal, dist, geom, normal):
    """Writes what MuJoCo found for the units `start` to `stop` to the rays they came from."""
    for i in range(start, stop):
        for j in range(index.shape[1]):
            r = index[i, j]
            if r >= 0:
                dist[r], geom[r] = found_dist[i, j], found_geom[i, j]
                for k in range(3):
                    normal[r, k] = found_normal[i, j, k]


@njit(cache=True, nogil=True)
def _square(u, smear):
    """A square wave of period 1 between -1 and 1, its flanks as wide as a pixel (`smear` / 2 periods)."""
    return max(-1.0, min(1.0, (1.0 - 4.0 * abs(u - np.floor(u) - 0.5)) / max(smear, 1e-6)))


@njit(cache=True, nogil=True)
def shade(start, stop, origin, direction, frame, dist, geom, normal, light, look, lights, lpos, ldir, head,
          sky, ppos, pmat, finish, lamp, lamp_on, lamp_pos, lamp_rgb, footprint, out):  # fmt: skip
    """Colours `out` [R, 3] (0 to 1) of rays with known hits.

    `look`: colour [ngeom, 3], (specular, shininess, emission) [ngeom, 3], plane index [ngeom]; `lights`:
    kind (0 spot, 1 directional, 2 point), ambient, diffuse, specular, (cos of cutoff, exponent), attenuation;
    `light` [L, R]: 0 in the shadow; `head`: the headlight's ambient, diffuse, specular; `sky`: below, above;
    `finish` of planes: repeats a metre, texture start, size, mean, haze (from, to), texels;
    `footprint`: width of a pixel at one metre.
    """
    rgb, gloss, plane_of = look
    kind, lambient, ldiffuse, lspecular, lcone, lfade = lights
    repeat, tstart, tsize, tmean, haze, texels = finish
    for r in range(start, stop):
        f, g = frame[r], geom[r]
        dx, dy, dz = direction[r, 0], direction[r, 1], direction[r, 2]
        up = 0.5 + 0.5 * max(-1.0, min(1.0, 1.6 * dz + 0.35))
        if g < 0:
            for k in range(3):
                out[r, k] = sky[0, k] + (sky[1, k] - sky[0, k]) * up
            continue
        nx, ny, nz = normal[r, 0], normal[r, 1], normal[r, 2]
        facing = -(nx * dx + ny * dy + nz * dz)
        if facing < 0.0:
            nx, ny, nz, facing = -nx, -ny, -nz, -facing
        if g == lamp and lamp_on[f]:
            for k in range(3):
                out[r, k] = min(1.0, lamp_rgb[k] * (0.74 + 0.36 * facing))
            continue
        px, py, pz = origin[r, 0] + dist[r] * dx, origin[r, 1] + dist[r] * dy, origin[r, 2] + dist[r] * dz
        red, green, blue = rgb[g, 0], rgb[g, 1], rgb[g, 2]
        p = plane_of[g]
        if p >= 0:  # texture or checker, faded to its mean where a cell is smaller than a pixel
            m = pmat[f, p]
            x, y, z = px - ppos[f, p, 0], py - ppos[f, p, 1], pz - ppos[f, p, 2]
            u = (m[0] * x + m[3] * y + m[6] * z) * repeat[p, 0]
            v = (m[1] * x + m[4] * y + m[7] * z) * repeat[p, 1]
            smear = 2.0 * footprint * dist[r] / max(facing, 0.05) * max(repeat[p, 0], repeat[p, 1])
            crisp = max(0.0, min(1.0, 1.5 - smear))
            if tsize[p, 0] > 0:
                i = min(int((u - np.floor(u)) * tsize[p, 0]), tsize[p, 0] - 1)
                j = min(int((v - np.floor(v)) * tsize[p, 1]), tsize[p, 1] - 1)
                at = tstart[p] + j * tsize[p, 0] + i
                red *= tmean[p, 0] + crisp * (texels[at, 0] - tmean[p, 0])
                green *= tmean[p, 1] + crisp * (texels[at, 1] - tmean[p, 1])
                blue *= tmean[p, 2] + crisp * (texels[at, 2] - tmean[p, 2])
            else:
                tone = 1.0 + crisp * CONTRAST * _square(u, smear) * _square(v, smear)
                red, green, blue = red * tone, green * tone, blue * tone
        shine = 128.0 * gloss[g, 1]
        glint = gloss[g, 0] * facing**shine if p < 0 else 0.0
        a0, a1, a2 = head[0, 0], head[0, 1], head[0, 2]
        a0, a1, a2 = a0 + head[1, 0] * facing, a1 + head[1, 1] * facing, a2 + head[1, 2] * facing
        s0, s1, s2 = head[2, 0] * glint, head[2, 1] * glint, head[2, 2] * glint
        for i in range(kind.shape[0]):
            a0, a1, a2 = a0 + lambient[i, 0], a1 + lambient[i, 1], a2 + lambient[i, 2]
            power = light[i, r]
            if kind[i] == 1:
                lx, ly, lz = -ldir[f, i, 0], -ldir[f, i, 1], -ldir[f, i, 2]
            else:
                lx, ly, lz = lpos[f, i, 0] - px, lpos[f, i, 1] - py, lpos[f, i, 2] - pz
                far = max((lx * lx + ly * ly + lz * lz) ** 0.5, 1e-9)
                lx, ly, lz = lx / far, ly / far, lz / far
                power /= max(lfade[i, 0] + lfade[i, 1] * far + lfade[i, 2] * far * far, 1e-9)
                if kind[i] == 0:
                    cosine = -(lx * ldir[f, i, 0] + ly * ldir[f, i, 1] + lz * ldir[f, i, 2])
                    power *= cosine ** lcone[i, 1] if cosine > lcone[i, 0] else 0.0
            lambert = nx * lx + ny * ly + nz * lz
            if lambert <= 0.0 or power == 0.0:
                continue
            if p < 0:
                hx, hy, hz = lx - dx, ly - dy, lz - dz
                half = (nx * hx + ny * hy + nz * hz) / max((hx * hx + hy * hy + hz * hz) ** 0.5, 1e-9)
                glint = power * gloss[g, 0] * max(half, 0.0) ** shine
                s0, s1 = s0 + lspecular[i, 0] * glint, s1 + lspecular[i, 1] * glint
                s2 += lspecular[i, 2] * glint
            power *= lambert
            a0, a1, a2 = a0 + ldiffuse[i, 0] * power, a1 + ldiffuse[i, 1] * power, a2 + ldiffuse[i, 2] * power
        if lamp >= 0 and lamp_on[f]:  # a warm glow around the lamp
            lx, ly, lz = lamp_pos[f, 0] - px, lamp_pos[f, 1] - py, lamp_pos[f, 2] - pz
            far = max((lx * lx + ly * ly + lz * lz) ** 0.5, 1e-9)
            power = 0.75 * max(0.0, (nx * lx + ny * ly + nz * lz) / far) / (1.0 + (far / 0.06) ** 2)
            a0, a1, a2 = a0 + power * lamp_rgb[0], a1 + power * lamp_rgb[1], a2 + power * lamp_rgb[2]
        glow = gloss[g, 2]
        red, green, blue = red * (a0 + glow) + s0, green * (a1 + glow) + s1, blue * (a2 + glow) + s2
        if p >= 0 and haze[p, 1] > 0.0:  # an endless plane fades into the background
            fog = max(0.0, min(1.0, (dist[r] - haze[p, 0]) / (haze[p, 1] - haze[p, 0])))
            fog = fog * fog * (3.0 - 2.0 * fog)
            red += fog * (sky[0, 0] + (sky[1, 0] - sky[0, 0]) * up - red)
            green += fog * (sky[0, 1] + (sky[1, 1] - sky[0, 1]) * up - green)
            blue += fog * (sky[0, 2] + (sky[1, 2] - sky[0, 2]) * up - blue)
        out[r, 0], out[r, 1], out[r, 2] = min(red, 1.0), min(green, 1.0), min(blue, 1.0)


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
