"""How alike a plane looks in photographs, patch by patch, with the derivatives by which the plane moves.

Each pair of a point and another photograph is one pass over the patch's pixels that keeps sums alone: no pixel of a
patch is ever stored. In torch they are arrays of P x S x side^2 points, pixels, colors and gradients.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

from models.kernels.runtime.lanes import TYPES
from models.kernels.runtime.launch import lanes, launch
from models.kernels.runtime.native import ByteRows, Bytes, Floats, LongRows, Rows, native_kernel

GRAIN = 16  # blocks of pairs that are worth a second thread


@dataclass(frozen=True)
class Photographs:
    """Gray photographs, and how they see P points: of each K, the first its own, the others to be compared with it.

    gray: [N] uint8, pixels, photograph by photograph, row by row. layout: [V, 4] int64, as in `store`. view: [P, K]
    int64, rows of the layout. local: [P, K, 12] float32, the cameras near the points, see `plane_ncc`.
    """

    gray: Tensor
    layout: Tensor
    view: Tensor
    local: Tensor


def plane_ncc(
    normal: Tensor, shift: Tensor, photographs: Photographs, *, side: int
) -> tuple[Tensor, Tensor, Tensor]:
    """Normalized cross-correlation of patches on planes through P points, in the points' photographs and in S others.

    normal: [P, 3] float32 of the plane, toward the first camera. shift: [P], of the plane from the point, along the
    normal. side: of a patch in pixels of the first photograph, odd. A row of `local` holds u, v and z of a point x and
    a matrix M by rows: x + d is seen at (u, v) + (a, b) / (z + c) with (a, b, c) = M d; at z <= 0 it is not seen.
    Returns ncc [P, S] in [-1, 1], 0 where it is not seen; seen [P, S] bool, whether the whole patch lies in both
    photographs and the plane is no more than twice as far at its corners; and the standard deviation [P] of the gray
    in the first one, in [0, 1]. Bilinear. Differentiable in normal and shift, once.
    """
    return _PlaneNcc.apply(normal, shift, photographs, side)


class _PlaneNcc(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, normal: Tensor, shift: Tensor, photographs: Photographs, side: int) -> tuple[Tensor, ...]:
        points, others, device = len(normal), photographs.view.shape[1] - 1, normal.device
        ncc, deviation = normal.new_empty(points, others), normal.new_zeros(points)
        seen = torch.empty(points, others, dtype=torch.uint8, device=device)
        slope = normal.new_empty(points * others, 4)
        of = [photographs.gray, photographs.layout, photographs.view, photographs.local.view(-1, 12)]
        given = [*of, normal.contiguous(), shift.contiguous(), side // 2, ncc, seen, deviation, slope]
        blocks = -(-points * others // lanes(device))
        launch(_compare, blocks, given, device=device, grain=GRAIN)
        ctx.save_for_backward(slope)
        seen = seen.view(torch.bool)
        ctx.mark_non_differentiable(seen, deviation)
        return ncc, seen, deviation

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor, *_: Tensor) -> tuple[Tensor | None, ...]:
        (slope,) = ctx.saved_tensors
        of_plane = (grad[..., None] * slope.view(*grad.shape, 4)).sum(1)
        return of_plane[:, 1:], of_plane[:, 0], None, None


# Of each pair: the rows of `local` as r and s, the normal, the photographs, and what a patch's pixels share. A pixel at
# the offset p = (i, j, 1) from the point's own is seen by the other camera in the direction e (nu . p) + h (N p).
_SETUP = (
    TYPES
    + """
    const int others = seen.shape[1], pairs = seen.shape[0] * others, start = item * LANES;
    const int end = pairs - start < (int)LANES ? pairs - start : (int)LANES;
    const unsigned char *own[LANES], *other[LANES];
    vf r[12], s[12], n[3], moved, wide, high, own_wide, own_high;
    vi stride, own_stride;
    for (int l = 0; l < LANES; ++l) {
        const int pair = start + (l < end ? l : end - 1), p = pair / others, at = p * (others + 1);
        const int k = at + 1 + pair % others;
        for (int c = 0; c < 12; ++c) {
            LANE(r[c], l) = local.data[12 * at + c];
            LANE(s[c], l) = local.data[12 * k + c];
        }
        for (int c = 0; c < 3; ++c) LANE(n[c], l) = normal.data[3 * p + c];
        LANE(moved, l) = shift.data[p];
        const long long *mine = layout.data + 4 * view.data[at], *its = layout.data + 4 * view.data[k];
        own[l] = gray.data + mine[0];
        other[l] = gray.data + its[0];
        LANE(own_stride, l) = (int)mine[1];
        LANE(stride, l) = (int)its[1];
        LANE(own_wide, l) = (float)mine[1]; LANE(own_high, l) = (float)mine[2];
        LANE(wide, l) = (float)its[1]; LANE(high, l) = (float)its[2];
    }
    // The inverse of the first camera's matrix, by columns of cross products of its rows.
    vf inverse[3][3], nu[3], n_by[3][3], e[3];
    for (int i = 0; i < 3; ++i)
        for (int c = 0; c < 3; ++c) {
            const int u = (i + 1) % 3, v = (i + 2) % 3, a = 3 + 3 * ((c + 1) % 3), b = 3 + 3 * ((c + 2) % 3);
            inverse[i][c] = r[a + u] * r[b + v] - r[a + v] * r[b + u];
        }
    const vf whole = 1.0f / (r[3] * inverse[0][0] + r[4] * inverse[1][0] + r[5] * inverse[2][0]);
    for (int i = 0; i < 3; ++i)
        for (int c = 0; c < 3; ++c) inverse[i][c] *= whole;
    for (int c = 0; c < 3; ++c) {
        nu[c] = n[0] * inverse[0][c] + n[1] * inverse[1][c] + n[2] * inverse[2][c];
        for (int i = 0; i < 3; ++i)
            n_by[i][c] = s[3 + 3 * i] * inverse[0][c] + s[4 + 3 * i] * inverse[1][c] + s[5 + 3 * i] * inverse[2][c];
    }
    for (int i = 0; i < 3; ++i) e[i] = -r[2] * n_by[i][2];
    e[2] += s[2];
    const vf h = moved + r[2] * nu[2], reach = (float)half;
    const vf u0 = r[0] - 0.5f, v0 = r[1] - 0.5f;
    vi ok = (u0 - reach >= 0.0f) & (v0 - reach >= 0.0f) & (u0 + reach <= own_wide - 1.0f);
    ok = ok & (v0 + reach <= own_high - 1.0f) & (r[2] > 0.0f) & (s[2] > 0.0f) & (h < 0.0f);
    ok = ok & ((ABS(nu[0]) + ABS(nu[1])) * reach <= -0.5f * nu[2]) & (wide >= 2.0f) & (high >= 2.0f);
    // What is not seen reads its photograph's first pixel.
    const vi nothing = TO_INT(reach - reach);
    const vi right = SELECT(ok, nothing + 1, nothing), below = SELECT(ok, stride, nothing);
    const vi own_below = SELECT(ok, own_stride, nothing);
"""
)
# Four neighbors of a photograph from the place `at` on, each lane of its own; bilinear shares x and y.
_READ = """
    #undef READ
    #define READ(into, from, at, below, x, y) \\
        vi into##_a, into##_b, into##_c, into##_d; \\
        for (int l = 0; l < LANES; ++l) { \\
            const unsigned char* here = (from)[l] + LANE(at, l); \\
            const unsigned char* next = here + LANE(right, l); \\
            LANE(into##_a, l) = here[0]; LANE(into##_b, l) = next[0]; \\
            LANE(into##_c, l) = here[LANE(below, l)]; LANE(into##_d, l) = next[LANE(below, l)]; \\
        } \\
        const vf into##_0 = TO_FLOAT(into##_a), into##_1 = TO_FLOAT(into##_b - into##_a); \\
        const vf into##_2 = TO_FLOAT(into##_c - into##_a); \\
        const vf into##_3 = TO_FLOAT(into##_d - into##_c - into##_b + into##_a); \\
        const vf into##_u = FMA(y, into##_3, into##_1), into##_v = FMA(x, into##_3, into##_2); \\
        const vf into = FMA(x, into##_u, FMA(y, into##_2, into##_0));
"""


@native_kernel(
    _SETUP
    + _READ
    + """
    // At the last column or row the share is one of the pixel before.
    const vi column0 = TO_INT(SELECT(ok, VMIN(VMAX(u0 - reach, (vf)0.0f), own_wide - 2.0f - 2.0f * reach), (vf)0.0f));
    const vi row0 = TO_INT(SELECT(ok, VMIN(VMAX(v0 - reach, (vf)0.0f), own_high - 2.0f - 2.0f * reach), (vf)0.0f));
    const vf own_x = u0 - reach - TO_FLOAT(column0), own_y = v0 - reach - TO_FLOAT(row0);
    const vi own_at = row0 * own_below + column0;
    vf middle;
    for (int l = 0; l < LANES; ++l)
        LANE(middle, l) = (float)own[l][LANE(own_at, l) + half * (LANE(right, l) + LANE(own_below, l))];
    // Sums of gray and of its slopes by the plane: q by its shift, t by nu, the latter times 1, i and j.
    vf sum_a = 0.0f, sum_b = 0.0f, sum_aa = 0.0f, sum_bb = 0.0f, sum_ab = 0.0f;
    vf q_1 = 0.0f, q_a = 0.0f, q_b = 0.0f, t_1 = 0.0f, t_a = 0.0f, t_b = 0.0f;
    vf i_1 = 0.0f, i_a = 0.0f, i_b = 0.0f, j_1 = 0.0f, j_a = 0.0f, j_b = 0.0f;
    for (int row = -half; row <= half; ++row)
        for (int column = -half; column <= half; ++column) {
            const float i = (float)column, j = (float)row;
            const vf k = nu[0] * i + nu[1] * j + nu[2];
            const vf qx = n_by[0][0] * i + n_by[0][1] * j + n_by[0][2];
            const vf qy = n_by[1][0] * i + n_by[1][1] * j + n_by[1][2];
            const vf qz = n_by[2][0] * i + n_by[2][1] * j + n_by[2][2];
            const vf z = FMA(e[2], k, h * qz), inverse_z = 1.0f / z;
            const vf du = FMA(e[0], k, h * qx) * inverse_z, dv = FMA(e[1], k, h * qy) * inverse_z;
            const vf u = s[0] - 0.5f + du, v = s[1] - 0.5f + dv;
            ok = ok & (z < 0.0f) & (u >= 0.0f) & (v >= 0.0f) & (u <= wide - 1.0f) & (v <= high - 1.0f);
            const vf within_u = SELECT(ok, u, (vf)0.0f), within_v = SELECT(ok, v, (vf)0.0f);
            const vi left = TO_INT(VMIN(within_u, wide - 2.0f)), above = TO_INT(VMIN(within_v, high - 2.0f));
            const vi at = SELECT(ok, above * stride + left, nothing);
            const vf x = within_u - TO_FLOAT(left), y = within_v - TO_FLOAT(above);
            READ(gray_b, other, at, below, x, y);
            const vi own_place = own_at + (column + half) * right + (row + half) * own_below;
            READ(gray_a, own, own_place, own_below, own_x, own_y);
            const vf a = gray_a - middle, b = gray_b - middle;
            const vf across = gray_b_u * inverse_z, down = gray_b_v * inverse_z, inward = -(across * du + down * dv);
            const vf q = across * qx + down * qy + inward * qz, t = across * e[0] + down * e[1] + inward * e[2];
            const vf ti = t * i, tj = t * j;
            sum_a += a; sum_b += b;
            sum_aa = FMA(a, a, sum_aa); sum_bb = FMA(b, b, sum_bb); sum_ab = FMA(a, b, sum_ab);
            q_1 += q; q_a = FMA(a, q, q_a); q_b = FMA(b, q, q_b);
            t_1 += t; t_a = FMA(a, t, t_a); t_b = FMA(b, t, t_b);
            i_1 += ti; i_a = FMA(a, ti, i_a); i_b = FMA(b, ti, i_b);
            j_1 += tj; j_a = FMA(a, tj, j_a); j_b = FMA(b, tj, j_b);
        }
    const float share = 1.0f / ((2 * half + 1) * (2 * half + 1));
    const vf mean_a = share * sum_a, mean_b = share * sum_b;
    const vf var_a = VMAX(share * sum_aa - mean_a * mean_a, (vf)0.0f);
    const vf var_b = VMAX(share * sum_bb - mean_b * mean_b, (vf)0.0f);
    const vf inverse_root = 1.0f / ROOT(var_a * var_b + 0.42f);  // 1e-10 where white is one
    const vf alike = (share * sum_ab - mean_a * mean_b) * inverse_root;
    const vf by_a = SELECT(ok, share * inverse_root, (vf)0.0f), by_b = by_a * alike * var_a * inverse_root;
    #undef OF_SUMS
    #define OF_SUMS(g) (by_a * (g##_a - mean_a * g##_1) - by_b * (g##_b - mean_b * g##_1))
    const vf of_shift = OF_SUMS(q), of_i = OF_SUMS(i), of_j = OF_SUMS(j), of_one = OF_SUMS(t) + r[2] * of_shift;
    vf of_normal[3];
    for (int c = 0; c < 3; ++c)
        of_normal[c] = inverse[c][0] * of_i + inverse[c][1] * of_j + inverse[c][2] * of_one;
    const vf shown = SELECT(ok, alike, (vf)0.0f), spread = ROOT(var_a) * (1.0f / 255.0f);
    for (int l = 0; l < end; ++l) {
        const int pair = start + l;
        ncc.data[pair] = LANE(shown, l);
        seen.data[pair] = LANE(ok, l) ? 1 : 0;
        // Seen or not, the patch itself is the same in all pairs of a point that read it.
        if (LANE(ok, l)) deviation.data[pair / others] = LANE(spread, l);
        slope.data[4 * pair] = LANE(of_shift, l);
        for (int c = 0; c < 3; ++c) slope.data[4 * pair + 1 + c] = LANE(of_normal[c], l);
    }
"""
)
def _compare(
    item: int, gray: Bytes, layout: LongRows, view: LongRows, local: Rows, normal: Rows, shift: Floats, half: int,
    ncc: Rows, seen: ByteRows, deviation: Floats, slope: Rows,
): ...
