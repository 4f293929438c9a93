"""The ray caster's lighting model, compiled (see `envs.raycast`, and `envs.casting` for the arrays of rays).

MuJoCo's: headlight plus up to two of the model's lights, each ``ambient + diffuse * max(0, n.l)`` times the geom's
colour ``+ specular * max(0, n.h)^shininess``, without loss over distance unless the light asks for it.
"""

from __future__ import annotations

import numpy as np
from numba import njit

__all__ = ["shade"]

CONTRAST = 0.05  # relative contrast of the checker on a plane without a texture


@njit(cache=True, nogil=True)
def _square(u, smear):
    """A square wave of period 1 between -1 and 1, its flanks as wide as a pixel (`smear` / 2 periods)."""
    return max(-1.0, min(1.0, (1.0 - 4.0 * abs(u - np.floor(u) - 0.5)) / max(smear, 1e-6)))


@njit(cache=True, nogil=True)
def shade(start, stop, cameras, eye, frame, direction, dist, geom, normal, light, coat, lights, lpos, ldir, head, sky,
          pos, mat, finish, lamp_of, lamp_on, lamp_rgb, footprint, out):  # fmt: skip
    """Colours `out` [R, 3] (0 to 1) of rays with known hits.

    `eye` [F, 3], `pos` [S, K, 3] and `mat` [S, K, 9] place cameras and geoms; `light` [L, R]: 0 in the shadow;
    `coat`: colours [S, K, 3], (specular, shininess, emission, least cosine
    of a highlight) [K, 4], number among the planes [K]; `lights`: kind
    (0 spot, 1 directional, 2 point), ambient, diffuse, specular, (cos of cutoff, exponent), attenuation; `lpos` and
    `ldir` [S, L, 3]; `head`: the headlight's ambient, diffuse, specular; `sky`: below, above; `finish` of planes:
    repeats a metre, texture start, size, mean, haze (from, to), texels; `lamp_of` [M]: the geoms that are lamps,
    `lamp_on` [S, M], `lamp_rgb` [S, M, 3]; `footprint` [cameras]: width of a pixel at one metre.
    """
    rgb, gloss, plane_of = coat
    kind, lambient, ldiffuse, lspecular, lcone, lfade = lights
    repeat, tstart, tsize, tmean, haze, texels = finish
    for r in range(start, stop):
        f, g = frame[r], geom[r]
        s = f // cameras
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
        shines = -1
        for i in range(lamp_of.shape[0]):
            if lamp_of[i] == g and lamp_on[s, i]:
                shines = i
        if shines >= 0:
            for k in range(3):
                out[r, k] = min(1.0, lamp_rgb[s, shines, k] * (0.74 + 0.36 * facing))
            continue
        px, py, pz = eye[f, 0] + dist[r] * dx, eye[f, 1] + dist[r] * dy, eye[f, 2] + dist[r] * dz
        red, green, blue = rgb[s, g, 0], rgb[s, g, 1], rgb[s, g, 2]
        p = plane_of[g]
        if p >= 0:  # texture or checker, faded to its mean where a cell is smaller than a pixel
            m = mat[s, g]
            x, y, z = px - pos[s, g, 0], py - pos[s, g, 1], pz - pos[s, g, 2]
            u = (m[0] * x + m[3] * y + m[6] * z) * repeat[p, 0]
            v = (m[1] * x + m[4] * y + m[7] * z) * repeat[p, 1]
            smear = 2.0 * footprint[f % cameras] * dist[r] / max(facing, 0.05) * max(repeat[p, 0], repeat[p, 1])
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
        shiny = p < 0 and gloss[g, 0] > 0.0
        glint = gloss[g, 0] * facing**shine if shiny and facing > gloss[g, 3] else 0.0
        a0, a1, a2 = head[0, 0], head[0, 1], head[0, 2]
        a0, a1, a2 = a0 + head[1, 0] * facing, a1 + head[1, 1] * facing, a2 + head[1, 2] * facing
        s0, s1, s2 = head[2, 0] * glint, head[2, 1] * glint, head[2, 2] * glint
        for i in range(kind.shape[0]):
            a0, a1, a2 = a0 + lambient[i, 0], a1 + lambient[i, 1], a2 + lambient[i, 2]
            power = light[i, r]
            if kind[i] == 1:
                lx, ly, lz = -ldir[s, i, 0], -ldir[s, i, 1], -ldir[s, i, 2]
            else:
                lx, ly, lz = lpos[s, i, 0] - px, lpos[s, i, 1] - py, lpos[s, i, 2] - pz
                far = max((lx * lx + ly * ly + lz * lz) ** 0.5, 1e-9)
                lx, ly, lz = lx / far, ly / far, lz / far
                power /= max(lfade[i, 0] + lfade[i, 1] * far + lfade[i, 2] * far * far, 1e-9)
                if kind[i] == 0:
                    cosine = -(lx * ldir[s, i, 0] + ly * ldir[s, i, 1] + lz * ldir[s, i, 2])
                    power *= cosine ** lcone[i, 1] if cosine > lcone[i, 0] else 0.0
            lambert = nx * lx + ny * ly + nz * lz
            if lambert <= 0.0 or power == 0.0:
                continue
            if shiny:
                hx, hy, hz = lx - dx, ly - dy, lz - dz
                half = (nx * hx + ny * hy + nz * hz) / max((hx * hx + hy * hy + hz * hz) ** 0.5, 1e-9)
                if half > gloss[g, 3]:
                    glint = power * gloss[g, 0] * half**shine
                    s0, s1 = s0 + lspecular[i, 0] * glint, s1 + lspecular[i, 1] * glint
                    s2 += lspecular[i, 2] * glint
            power *= lambert
            a0, a1, a2 = a0 + ldiffuse[i, 0] * power, a1 + ldiffuse[i, 1] * power, a2 + ldiffuse[i, 2] * power
        for i in range(lamp_of.shape[0]):  # a glow around each lamp
            if lamp_on[s, i]:
                k = lamp_of[i]
                lx, ly, lz = pos[s, k, 0] - px, pos[s, k, 1] - py, pos[s, k, 2] - pz
                far = max((lx * lx + ly * ly + lz * lz) ** 0.5, 1e-9)
                power = 0.75 * max(0.0, (nx * lx + ny * ly + nz * lz) / far) / (1.0 + (far / 0.06) ** 2)
                a0, a1 = a0 + power * lamp_rgb[s, i, 0], a1 + power * lamp_rgb[s, i, 1]
                a2 += power * lamp_rgb[s, i, 2]
        glow = gloss[g, 2]
        red, green, blue = red * (a0 + glow) + s0, green * (a1 + glow) + s1, blue * (a2 + glow) + s2
        if p >= 0 and haze[p, 1] > 0.0:  # an endless plane fades into the background
            fog = max(0.0, min(1.0, (dist[r] - haze[p, 0]) / (haze[p, 1] - haze[p, 0])))
            fog = fog * fog * (3.0 - 2.0 * fog)
            red += fog * (sky[0, 0] + (sky[1, 0] - sky[0, 0]) * up - red)
            green += fog * (sky[0, 1] + (sky[1, 1] - sky[0, 1]) * up - green)
            blue += fog * (sky[0, 2] + (sky[1, 2] - sky[0, 2]) * up - blue)
        out[r, 0], out[r, 1], out[r, 2] = min(red, 1.0), min(green, 1.0), min(blue, 1.0)
