// SPDX-License-Identifier: BSD-2-Clause
// matrix: products of matrices of doubles and of 32-bit integers, and a determinant by Gaussian
// elimination with pivots. Loops over rows that a compiler knows how to unroll and vectorise.
#include <math.h>
#include <string.h>

#include "kernel.h"

enum { N = 128 };

static void multiply_doubles(double out[N][N], double a[N][N], double b[N][N])
{
    memset(out, 0, sizeof(double[N][N]));
    for (int i = 0; i < N; i++) {
        for (int k = 0; k < N; k++) {
            double factor = a[i][k];
            for (int j = 0; j < N; j++)
                out[i][j] += factor * b[k][j];
        }
    }
}

// By columns, as a beginner writes it: the inner loop strides.
static void multiply_integers(uint32_t out[N][N], uint32_t a[N][N], uint32_t b[N][N])
{
    for (int i = 0; i < N; i++) {
        for (int j = 0; j < N; j++) {
            uint32_t dot = 0;
            for (int k = 0; k < N; k++)
                dot += a[i][k] * b[k][j];
            out[i][j] = dot;
        }
    }
}

static int pivot_row(double m[N][N], int column)
{
    int best = column;

    for (int row = column + 1; row < N; row++) {
        if (fabs(m[row][column]) > fabs(m[best][column]))
            best = row;
    }
    return best;
}

static void swap_rows(double *a, double *b)
{
    for (int j = 0; j < N; j++) {
        double was = a[j];
        a[j] = b[j];
        b[j] = was;
    }
}

// Destroys m.
static double determinant(double m[N][N])
{
    double product = 1;

    for (int column = 0; column < N; column++) {
        int pivot = pivot_row(m, column);
        if (pivot != column) {
            swap_rows(m[pivot], m[column]);
            product = -product;
        }
        product *= m[column][column];
        for (int row = column + 1; row < N; row++) {
            double factor = m[row][column] / m[column][column];
            for (int j = column; j < N; j++)
                m[row][j] -= factor * m[column][j];
        }
    }
    return product;
}

static uint64_t bits(double x)
{
    uint64_t value;

    memcpy(&value, &x, sizeof(value));
    return value;
}

uint64_t kernel_run(unsigned long rounds)
{
    static double a[N][N], b[N][N], product[N][N];
    static uint32_t c[N][N], d[N][N], integers[N][N];
    uint64_t random = 3, sum = 0;

    for (unsigned long round = 0; round < rounds; round++) {
        for (int i = 0; i < N; i++) {
            for (int j = 0; j < N; j++) {
                uint64_t value = kernel_random(&random);
                a[i][j] = (double)(value & 0xfffff) / 0x100000 - 0.5;
                b[i][j] = (double)(value >> 40 & 0xfffff) / 0x80000 - 1;
                c[i][j] = (uint32_t)value;
                d[i][j] = (uint32_t)(value >> 32);
            }
        }
        multiply_doubles(product, a, b);
        multiply_integers(integers, c, d);
        for (int i = 0; i < N; i++) {
            for (int j = 0; j < N; j++)
                sum = kernel_mix(sum, bits(product[i][j]) ^ integers[i][j]);
        }
        sum = kernel_mix(sum, bits(determinant(product)));
    }
    return sum;
}
