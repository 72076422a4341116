"""C++ of the permutohedral encoding's kernels, for a block of points at one level: `LANES` points (see lanes.py).

In three dimensions the permutohedral lattice is the body-centered cubic one: the corners and centers of cubic cells.
With half diagonals of a cell as its basis, (-1, 1, 1)/2, (1, -1, 1)/2 and (1, 1, -1)/2, a point (x, y, z) has the
coordinates (y + z, z + x, x + y), and its simplex is found by sorting their fractions: from the vertex below one goes
along the axis of the largest fraction, then along those of the middle and the smallest one.
Source: Adams, Baek and Davis, "Fast High-Dimensional Filtering Using the Permutohedral Lattice" (2010), section 3, in
the basis above; theirs is the same lattice turned.
"""

from __future__ import annotations

from models.kernels.encodings.level_blocks import ADD, POINT, PRIMES, READ, WEIGHTS

# The simplex of each point: the fractions in their order, and the rows of its four vertices on the way along them.
# BY_ORDER: of three numbers, one per axis, those of the axes with the largest, the middle and the smallest fraction.
_SIMPLEX = (
    """
    const int first_row = first_rows.data[level], rows = first_rows.data[level + 1] - first_row;
    const int column = lead + 2 * level;
    const float size = cells.data[level], slope = 0.5f * size;
    const float* shift = shifts.data + 3 * level;
"""
    + POINT
    + PRIMES
    + """
    fx = fx * size + shift[0]; fy = fy * size + shift[1]; fz = fz * size + shift[2];
    vf fu = fy + fz, fv = fz + fx, fw = fx + fy;  // never below 0
    const vi u = TO_INT(fu), v = TO_INT(fv), w = TO_INT(fw);
    fu -= TO_FLOAT(u); fv -= TO_FLOAT(v); fw -= TO_FLOAT(w);
    const vi top_u = (fu >= fv) & (fu >= fw), low_u = (fu < fv) & (fu < fw);
    const vi top_v = (fu < fv) & (fv >= fw), low_v = (fu >= fv) & (fv < fw);
    #undef TOP
    #undef LOW
    #undef BY_ORDER
    #define TOP(of_u, of_v, of_w) SELECT(top_u, of_u, SELECT(top_v, of_v, of_w))
    #define LOW(of_u, of_v, of_w) SELECT(low_u, of_u, SELECT(low_v, of_v, of_w))
    #define BY_ORDER(top, middle, low, of_u, of_v, of_w) \\
        const vf top = TOP(of_u, of_v, of_w), low = LOW(of_u, of_v, of_w); \\
        const vf middle = SELECT(top_u | low_u, SELECT(top_v | low_v, of_w, of_v), of_u)
    BY_ORDER(top, middle, low, fu, fv, fw);
    enum { CORNERS = 4 };
    vu row[CORNERS];
    const unsigned side = sides.data[level];
    if (side > 0) {
        // By the cubic cell: floor of x, y and twice z, whose half a vertex in the center of a cell is beyond them.
        const vu on_u = side * side - 1u, on_v = side * side - side, on_w = 1u + side - side * side;
        const vi twice_z = u + v - w, up = 1, down = -1;
        row[0] = TO_UNSIGNED(u) * on_u + TO_UNSIGNED(v) * on_v + TO_UNSIGNED(w) * on_w;
        row[1] = row[0] + TOP(on_u, on_v, on_w);
        row[3] = row[0] + side * side;
        row[2] = row[3] - LOW(on_u, on_v, on_w);
        const vi beyond[CORNERS] = {
            twice_z, twice_z + TOP(up, up, down), twice_z + up - LOW(up, up, down), twice_z + up};
        for (int corner = 0; corner < CORNERS; ++corner)
            row[corner] += (TO_UNSIGNED(beyond[corner]) >> 1u) * (side + 1u);
    } else {
        const unsigned mask = rows - 1;
        const vu hash_u = TO_UNSIGNED(u), hash_v = TO_UNSIGNED(v) * prime_y, hash_w = TO_UNSIGNED(w) * prime_z;
        const vu on_u = hash_u ^ (hash_u + 1u), on_v = hash_v ^ (hash_v + prime_y), on_w = hash_w ^ (hash_w + prime_z);
        row[0] = hash_u ^ hash_v ^ hash_w;
        row[1] = row[0] ^ TOP(on_u, on_v, on_w);
        row[3] = row[0] ^ on_u ^ on_v ^ on_w;
        row[2] = row[3] ^ LOW(on_u, on_v, on_w);
        for (int corner = 0; corner < CORNERS; ++corner) row[corner] &= mask;
    }
"""
)
# Of both features of the level: the number at the first vertex, and how much each step along an axis adds.
_STEPS = """
    vf at_first[2], on_top[2], on_middle[2], on_low[2];
    {
        vf second[2], third[2], last[2];
        READ(at_first, row[0]); READ(second, row[1]); READ(third, row[2]); READ(last, row[3]);
        for (int f = 0; f < 2; ++f) {
            on_top[f] = second[f] - at_first[f];
            on_middle[f] = third[f] - second[f];
            on_low[f] = last[f] - third[f];
        }
    }
"""
_LOOK_UP = _SIMPLEX + READ + _STEPS

# out [M, W]: the features, or with `along` [M, 3] their derivative in that direction.
ENCODE = (
    _LOOK_UP
    + """
    vf value[2];
    if (along.shape[0] > 0) {
        vf gx, gy, gz;
        ALONG(gx, gy, gz);
        const vf gu = gy + gz, gv = gz + gx, gw = gx + gy;
        BY_ORDER(by_top, by_middle, by_low, gu, gv, gw);
        for (int f = 0; f < 2; ++f)
            value[f] = slope * (by_top * on_top[f] + by_middle * on_middle[f] + by_low * on_low[f]);
    } else for (int f = 0; f < 2; ++f)
        value[f] = FMA(top, on_top[f], FMA(middle, on_middle[f], FMA(low, on_low[f], at_first[f])));
    const int width = out.shape[1];
    STORE2(out.data + (size_t)start * width + column, width, end, value[0], value[1]);
"""
)

# out [M, 3] += gradient in the points of sum(weight * features), weight [M, W].
PULL = (
    _LOOK_UP
    + """
    const int width = weight.shape[1];
    vf a, b, to_x, to_y, to_z;
    LOAD2(a, b, weight.data + (size_t)start * width + column, width, end);
    const vf by_top = slope * (a * on_top[0] + b * on_top[1]);
    const vf by_middle = slope * (a * on_middle[0] + b * on_middle[1]);
    const vf by_low = slope * (a * on_low[0] + b * on_low[1]);
    const vf to_u = SELECT(top_u, by_top, SELECT(low_u, by_low, by_middle));
    const vf to_v = SELECT(top_v, by_top, SELECT(low_v, by_low, by_middle));
    const vf to_w = SELECT(top_u | top_v, SELECT(low_u | low_v, by_middle, by_low), by_top);
    float* to = out.data + 3 * (size_t)start;
    LOAD3(to_x, to_y, to_z, to, end);
    to_x += SELECT(in_x, to_v + to_w, zero);
    to_y += SELECT(in_y, to_w + to_u, zero);
    to_z += SELECT(in_z, to_u + to_v, zero);
    STORE3(to, end, to_x, to_y, to_z);
"""
)

# table += gradient of sum(grad * features), and with `along` of sum(weight * derivative in that direction).
SCATTER = (
    _SIMPLEX
    + WEIGHTS
    + """
    gx *= slope; gy *= slope; gz *= slope;
    const vf gu = gy + gz, gv = gz + gx, gw = gx + gy;
    BY_ORDER(by_top, by_middle, by_low, gu, gv, gw);
    const vf first[CORNERS] = {one - top, top - middle, middle - low, low};
    const vf then[CORNERS] = {-by_top, by_top - by_middle, by_middle - by_low, by_low};
    PAIRS share[CORNERS];
    for (int corner = 0; corner < CORNERS; ++corner)
        share[corner] = PAIR_UP(FMA(c, then[corner], a * first[corner]), FMA(d, then[corner], b * first[corner]));
"""
    + ADD
)
