"""C++ for products of matrices that stay in a core's cache, by the vector registers of a CPU.

On a GPU nothing uses it: torch's products have units of their own there.
"""

from __future__ import annotations

from models.kernels.runtime.lanes import TYPES

# Of a block of the result, ROWS rows by VECTORS vectors of columns stay in registers: there are 32, or 16 of half the
# width without AVX-512.
PRODUCTS = (
    TYPES
    + """
    #undef READ
    #undef WRITE
    #undef ALL_OF
    #define READ(at) *(const block_of_floats*)(at)
    #define WRITE(at, v) *(block_of_floats*)(at) = v
    #define ALL_OF _Pragma("clang loop unroll(full)")
#if defined(__AVX512DQ__)
    struct Wide { enum { ROWS = 6, VECTORS = 4 }; };
    struct Half { enum { ROWS = 12, VECTORS = 2 }; };
    struct Narrow { enum { ROWS = 16, VECTORS = 1 }; };
#else
    struct Wide { enum { ROWS = 1, VECTORS = 4 }; };
    struct Half { enum { ROWS = 3, VECTORS = 2 }; };
    struct Narrow { enum { ROWS = 6, VECTORS = 1 }; };
#endif
    struct WideRow { enum { ROWS = 1, VECTORS = 4 }; };
    struct HalfRow { enum { ROWS = 1, VECTORS = 2 }; };
    struct NarrowRow { enum { ROWS = 1, VECTORS = 1 }; };
    // An argument of this width, for only then does the compiler use registers of this width.
    struct Fused { static vf add(vf a, vf b, vf c) { return FMA(a, b, c); } };
    struct Matrix { const float* at; int row, column; };  // element i, k lies at i row + k column

    // Rows r, r + 1 ... of to = start + a b, as many as whole blocks have; returns the first that is left.
    auto block_rows = [](auto block, int r, int m, int depth, float* to, int to_row, Matrix start, Matrix a,
                         const float* b, int b_row) -> int {
        enum { ROWS = decltype(block)::ROWS, VECTORS = decltype(block)::VECTORS };
        for (; r + ROWS <= m; r += ROWS) {
            vf sum[ROWS][VECTORS];
            ALL_OF for (int i = 0; i < ROWS; ++i)
                ALL_OF for (int v = 0; v < VECTORS; ++v)
                    sum[i][v] = start.at ? READ(start.at + (r + i) * start.row + v * LANES) : (vf)0.0f;
            const float *left = a.at + r * a.row, *right = b;
            NO_LOOP_VECTORS
            for (int k = 0; k < depth; ++k, left += a.column, right += b_row) {
                vf columns[VECTORS];
                ALL_OF for (int v = 0; v < VECTORS; ++v) columns[v] = READ(right + v * LANES);
                ALL_OF for (int i = 0; i < ROWS; ++i) {
                    const vf factor = left[i * a.row];
                    ALL_OF for (int v = 0; v < VECTORS; ++v) sum[i][v] = Fused::add(factor, columns[v], sum[i][v]);
                }
            }
            ALL_OF for (int i = 0; i < ROWS; ++i)
                ALL_OF for (int v = 0; v < VECTORS; ++v) WRITE(to + (r + i) * to_row + v * LANES, sum[i][v]);
        }
        return r;
    };
    // to[m, n] = start + a b, n a multiple of LANES; depth: of the sums. Rows of to, start and b are contiguous and
    // to_row, start.row and b_row apart. No start: zero; `to` may be `start`. What is read of b again and again, DEEP
    // rows of a few vectors, stays in the first-level cache.
    auto product = [&](int m, int n, int depth, float* to, int to_row, Matrix start, Matrix a, const float* b,
                       int b_row) __attribute__((noinline)) {
        enum { DEEP = 96 };
        for (int c = 0; c < n;) {
            const int vectors = (n - c) / LANES;
            for (int k = 0; k < depth; k += DEEP) {
                const int deep = depth - k < DEEP ? depth - k : (int)DEEP;
                const Matrix left = {a.at + (size_t)k * a.column, a.row, a.column};
                const Matrix from = k > 0 ? Matrix{to + c, to_row, 1}
                                          : Matrix{start.at ? start.at + c : nullptr, start.row, 1};
                #define ROWS_OF(block, r) \
                    block_rows(block(), r, m, deep, to + c, to_row, from, left, b + (size_t)k * b_row + c, b_row)
                if (vectors >= 4) ROWS_OF(WideRow, ROWS_OF(Wide, 0));
                else if (vectors >= 2) ROWS_OF(HalfRow, ROWS_OF(Half, 0));
                else ROWS_OF(NarrowRow, ROWS_OF(Narrow, 0));
                #undef ROWS_OF
            }
            c += (vectors >= 4 ? 4 : vectors >= 2 ? 2 : 1) * LANES;
        }
    };
"""
)
