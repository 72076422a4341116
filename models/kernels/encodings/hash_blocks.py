"""Functions of the hash encoding's kernels for a block of points at one level: `LANES` points at once (see lanes.py).

Those of a level take the block's number, the first of the level's two columns in a row of features, the level's layout
(cells to the side, first row, number of rows), then arrays: points [M, 3] and the table of all levels, and what is
written last. A row of the table that is read takes two words, or one where it holds 16-bit floats.
"""

from __future__ import annotations

import warp as wp

from models.kernels.encodings.level_blocks import ADD, FRAME, LEAD, POINT, PRIMES, READ, WEIGHTS
from models.kernels.runtime.lanes import TYPES
from models.kernels.runtime.native import Ints, Pairs, Rows

# Where the points of a block lie within a level: fractions in the cell, and what identifies its corners' rows.
_CELL = (
    TYPES
    + POINT
    + PRIMES
    + """
    const float n = (float)resolution;
    const vi last = resolution - 1;
    fx *= n; fy *= n; fz *= n;
    const vi x = VMIN(TO_INT(fx), last), y = VMIN(TO_INT(fy), last), z = VMIN(TO_INT(fz), last);
    fx -= TO_FLOAT(x); fy -= TO_FLOAT(y); fz -= TO_FLOAT(z);
    // In floats: the cube of a fine level's side does not fit 32 bits. Coarse products are exact.
    const bool dense = (n + 1.0f) * (n + 1.0f) * (n + 1.0f) <= (float)rows;
    const unsigned side = resolution + 1, mask = rows - 1;
    const unsigned step_y = dense ? side : prime_y, step_z = dense ? side * side : prime_z;
    const vu xs[2] = {TO_UNSIGNED(x), TO_UNSIGNED(x) + 1u};
    const vu ys[2] = {TO_UNSIGNED(y) * step_y, TO_UNSIGNED(y) * step_y + step_y};
    const vu zs[2] = {TO_UNSIGNED(z) * step_z, TO_UNSIGNED(z) * step_z + step_z};
    #define ROW(cx, cy, cz) (dense ? xs[cx] + ys[cy] + zs[cz] : (xs[cx] ^ ys[cy] ^ zs[cz]) & mask)
"""
)
# For both features of the level: the value, the derivative on each axis, and the mixed second derivatives (per cell).
_LOOK_UP = (
    _CELL
    + READ
    + """
    vf value[2], dx[2], dy[2], dz[2], dxy[2], dxz[2], dyz[2];
    vf v[2][2], vx[2][2], vy[2][2], vxy[2][2];  // [z][feature]
    for (int cz = 0; cz < 2; ++cz) {
        vf u[2][2], ux[2][2];  // [y][feature]
        for (int cy = 0; cy < 2; ++cy) {
            vf low[2], high[2];
            const vu from = ROW(0, cy, cz), to = ROW(1, cy, cz);
            READ(low, from);
            READ(high, to);
            for (int f = 0; f < 2; ++f) {
                ux[cy][f] = high[f] - low[f];
                u[cy][f] = FMA(fx, ux[cy][f], low[f]);
            }
        }
        for (int f = 0; f < 2; ++f) {
            vy[cz][f] = u[1][f] - u[0][f];
            v[cz][f] = FMA(fy, vy[cz][f], u[0][f]);
            vxy[cz][f] = ux[1][f] - ux[0][f];
            vx[cz][f] = FMA(fy, vxy[cz][f], ux[0][f]);
        }
    }
    for (int f = 0; f < 2; ++f) {
        dz[f] = v[1][f] - v[0][f];
        dxz[f] = vx[1][f] - vx[0][f];
        dyz[f] = vy[1][f] - vy[0][f];
        dxy[f] = FMA(fz, vxy[1][f] - vxy[0][f], vxy[0][f]);
        value[f] = FMA(fz, dz[f], v[0][f]);
        dx[f] = FMA(fz, dxz[f], vx[0][f]);
        dy[f] = FMA(fz, dyz[f], vy[0][f]);
    }
    const float slope = 0.5f * n;
"""
)


@wp.func_native(
    _LOOK_UP
    + """
    vf a = value[0], b = value[1];
    if (along.shape[0] > 0) {
        vf gx, gy, gz;
        ALONG(gx, gy, gz);
        a = slope * (gx * dx[0] + gy * dy[0] + gz * dz[0]);
        b = slope * (gx * dx[1] + gy * dy[1] + gz * dz[1]);
    }
    const int width = out.shape[1];
    STORE2(out.data + (size_t)start * width + column, width, end, a, b);
"""
)
def encode_block(
    block: int, column: int, resolution: int, first_row: int, rows: int, points: Rows, table: Ints, words: int,
    along: Rows, out: Rows,
):
    """out [M, W]: the features, or with `along` [M, 3] their derivative in that direction."""


@wp.func_native(
    _LOOK_UP
    + """
    const int width = weight.shape[1];
    vf a, b, gx, gy, gz;
    LOAD2(a, b, weight.data + (size_t)start * width + column, width, end);
    vf px = slope * (a * dx[0] + b * dx[1]);
    vf py = slope * (a * dy[0] + b * dy[1]);
    vf pz = slope * (a * dz[0] + b * dz[1]);
    if (along.shape[0] > 0) {
        LOAD2(a, b, second.data + (size_t)start * width + column, width, end);
        ALONG(gx, gy, gz);
        const vf xy = slope * slope * (a * dxy[0] + b * dxy[1]);
        const vf xz = slope * slope * (a * dxz[0] + b * dxz[1]);
        const vf yz = slope * slope * (a * dyz[0] + b * dyz[1]);
        px += gy * xy + gz * xz;
        py += gx * xy + gz * yz;
        pz += gx * xz + gy * yz;
    }
    float* to = out.data + 3 * (size_t)start;
    LOAD3(gx, gy, gz, to, end);
    gx += SELECT(in_x, px, zero);
    gy += SELECT(in_y, py, zero);
    gz += SELECT(in_z, pz, zero);
    STORE3(to, end, gx, gy, gz);
"""
)
def pull_block(
    block: int, column: int, resolution: int, first_row: int, rows: int, points: Rows, table: Ints, words: int,
    weight: Rows, second: Rows, along: Rows, out: Rows,
):
    """out [M, 3] += gradient in the points of sum(weight * features), weight [M, W].

    With `second` [M, W] and `along` [M, 3] also of sum(second * derivative of the features in direction `along`).
    """


@wp.func_native(
    _CELL
    + WEIGHTS
    + """
    const float slope = 0.5f * n;
    enum { CORNERS = 8 };
    PAIRS share[CORNERS];
    vu row[CORNERS];
    for (int corner = 0; corner < CORNERS; ++corner) {
        const int cx = corner & 1, cy = (corner >> 1) & 1, cz = corner >> 2;
        const vf wx = cx ? fx : one - fx, wy = cy ? fy : one - fy, wz = cz ? fz : one - fz;
        const float sx = cx ? slope : -slope, sy = cy ? slope : -slope, sz = cz ? slope : -slope;
        const vf first = wx * wy * wz;
        const vf then = gx * sx * wy * wz + gy * sy * wx * wz + gz * sz * wx * wy;
        share[corner] = PAIR_UP(FMA(c, then, a * first), FMA(d, then, b * first));
        row[corner] = ROW(cx, cy, cz);
    }
"""
    + ADD
)
def scatter_block(
    block: int, column: int, resolution: int, first_row: int, rows: int, points: Rows, table: Pairs, grad: Rows,
    weight: Rows, along: Rows,
):
    """table += gradient of sum(grad * features), and with `along` of sum(weight * derivative in that direction)."""


@wp.func_native(TYPES + FRAME)
def frame_block(block: int, lead: int, used: int, points: Rows, along: Rows, out: Rows):
    """out [M, W]: the columns before `lead`, the point itself or its derivative, and zeros from `used` on."""


@wp.func_native(TYPES + LEAD)
def lead_block(block: int, lead: int, weight: Rows, out: Rows):
    """out [M, 3]: the columns of weight [M, W] for the point itself, zero without them."""
