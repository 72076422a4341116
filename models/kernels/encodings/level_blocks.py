"""C++ that the kernels of all encodings by a table with several levels share, for a block of points (see lanes.py).

It speaks of arrays points [M, 3], a table whose rows are those of one level after the other, features or weights [M, W]
and a direction per point, `along` [M, 3] or of no rows: none. A level has two columns, from `column` on, and rows from
`first_row` on. A row of the table that is read takes two words, or one where it holds 16-bit floats.
"""

from __future__ import annotations

# The points of the block, scaled to the unit cube; leaves what it stands in where there are none. ALONG: their
# directions, in which nothing changes beyond the cube.
POINT = """
    BLOCK_OF(points);
    if (end <= 0) return;
    vf fx, fy, fz;
    LOAD3(fx, fy, fz, points.data + 3 * (size_t)start, end);
    const vi in_x = ABS(fx) < 1.0f, in_y = ABS(fy) < 1.0f, in_z = ABS(fz) < 1.0f;  // beyond it features are constant
    const vf zero = 0.0f, one = 1.0f;
    fx = VMIN(VMAX(fx * 0.5f + 0.5f, zero), one);
    fy = VMIN(VMAX(fy * 0.5f + 0.5f, zero), one);
    fz = VMIN(VMAX(fz * 0.5f + 0.5f, zero), one);
    #undef ALONG
    #define ALONG(gx, gy, gz) do { \\
        LOAD3(gx, gy, gz, along.data + 3 * (size_t)start, end); \\
        gx = SELECT(in_x, gx, zero); gy = SELECT(in_y, gy, zero); gz = SELECT(in_z, gz, zero); } while (0)
"""

# Of the hash, with 1 for the first coordinate. Müller et al. (2022), eq. 4.
PRIMES = """
    const unsigned prime_y = 2654435761u, prime_z = 805459861u;
"""

# READ: both numbers of each point's row of the level.
READ = """
    const int* base = table.data + words * (size_t)first_row;
    #undef READ
    #define READ(into, row) do { \\
        if (words == 2) { GATHER_PAIRS(into[0], into[1], (const float*)base, row, 2); } \\
        else { GATHER_HALVES(into[0], into[1], base, row); } } while (0)
"""

# Before a gradient is added to the table: a, b of the features and c, d of their derivative along (gx, gy, gz).
WEIGHTS = """
    const int width = grad.shape[1];
    vf a, b, c = 0.0f, d = 0.0f, gx = 0.0f, gy = 0.0f, gz = 0.0f;
    LOAD2(a, b, grad.data + (size_t)start * width + column, width, end);
    if (along.shape[0] > 0) {
        LOAD2(c, d, weight.data + (size_t)start * width + column, width, end);
        ALONG(gx, gy, gz);
    }
    if (!ANY((a != 0.0f) | (b != 0.0f) | (c != 0.0f) | (d != 0.0f))) return;  // a GPU's threads would queue for nothing
    float* base = (float*)table.data + 2 * (size_t)first_row;
"""

# To each point's CORNERS rows, row[corner], the pairs share[corner].
ADD = """
#if !defined(__CUDA_ARCH__)
    for (int corner = 0; corner < CORNERS; ++corner)  // the rows come into the cache together
        for (int l = 0; l < end; ++l) __builtin_prefetch(base + 2 * (size_t)LANE(row[corner], l), 1, 3);
#endif
    // Point by point: the sums of a point are independent, those of neighbors in one row are not.
    for (int l = 0; l < end; ++l)
        for (int corner = 0; corner < CORNERS; ++corner)
            ADD_PAIR(base + 2 * (size_t)LANE(row[corner], l), share[corner], l);
"""

# out [M, W]: the columns before `lead`, the point itself or its derivative, and zeros from `used` on.
FRAME = """
    const int width = out.shape[1], start = block * LANES;
    const float* from = along.shape[0] > 0 ? along.data : points.data;
    for (int r = start; r < start + LANES && r < out.shape[0]; ++r) {
        float* to = out.data + (size_t)r * width;
        for (int c = 0; c < lead; ++c) to[c] = from[3 * (size_t)r + c];
        for (int c = used; c < width; ++c) to[c] = 0.0f;
    }
"""

# out [M, 3]: the columns of weight [M, W] for the point itself, zero without them.
LEAD = """
    const int width = weight.shape[1], start = block * LANES;
    for (int r = start; r < start + LANES && r < out.shape[0]; ++r)
        for (int c = 0; c < 3; ++c) out.data[3 * (size_t)r + c] = lead > 0 ? weight.data[(size_t)r * width + c] : 0.0f;
"""
