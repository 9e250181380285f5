// SPDX-License-Identifier: BSD-2-Clause
// bytecode: an interpreter of a small register machine, which runs a sieve, a recursive function
// and Collatz sequences. An indirect jump every few instructions, as in a scripting language's
// inner loop.
#include <stdlib.h>

#include "kernel.h"

enum { REGISTERS = 8, MEMORY = 1 << 14, CALLS = 64 };

enum op {
    SET,       // a = immediate
    MOVE,      // a = b
    ADD,       // a = b + c
    ADD_I,     // a = b + immediate
    MULTIPLY,  // a = b * c
    AND_I,     // a = b & immediate
    SHIFT_I,   // a = b >> immediate
    LOAD,      // a = memory[b]
    STORE,     // memory[b] = a
    PUSH,      // memory[--sp] = a
    POP,       // a = memory[sp++]
    LESS,      // if b < c: jump
    ZERO,      // if b == 0: jump
    JUMP,
    CALL,
    RETURN,
    HALT,
};

// `at` is a jump's destination, or the immediate operand.
struct insn {
    uint8_t op, a, b, c;
    int32_t at;
};

struct machine {
    uint64_t registers[REGISTERS];
    uint64_t memory[MEMORY];
    uint32_t calls[CALLS];
};

// Counts the primes below register 1 in register 0.
static const struct insn sieve[] = {
    {SET, .a = 2, .at = 0},              // 0: clear the table
    {SET, .a = 0, .at = 0},              // 1
    {STORE, .a = 0, .b = 2},             // 2
    {ADD_I, .a = 2, .b = 2, .at = 1},    // 3
    {LESS, .b = 2, .c = 1, .at = 2},     // 4
    {SET, .a = 2, .at = 2},              // 5: for each number
    {LOAD, .a = 3, .b = 2},              // 6
    {ZERO, .b = 3, .at = 9},             // 7
    {JUMP, .at = 15},                    // 8
    {ADD_I, .a = 0, .b = 0, .at = 1},    // 9: a prime; strike out its multiples
    {MULTIPLY, .a = 4, .b = 2, .c = 2},  // 10
    {JUMP, .at = 14},                    // 11
    {STORE, .a = 2, .b = 4},             // 12
    {ADD, .a = 4, .b = 4, .c = 2},       // 13
    {LESS, .b = 4, .c = 1, .at = 12},    // 14
    {ADD_I, .a = 2, .b = 2, .at = 1},    // 15
    {LESS, .b = 2, .c = 1, .at = 6},     // 16
    {.op = HALT},
};

// Fibonacci's number of register 1 in register 0, by calling itself.
static const struct insn fibonacci[] = {
    {SET, .a = 5, .at = 2},             // 0
    {CALL, .at = 3},                    // 1
    {.op = HALT},                       // 2
    {MOVE, .a = 0, .b = 1},             // 3: register 1 as it is, when below 2
    {LESS, .b = 1, .c = 5, .at = 14},   // 4
    {PUSH, .a = 1},                     // 5
    {ADD_I, .a = 1, .b = 1, .at = -1},  // 6
    {CALL, .at = 3},                    // 7
    {POP, .a = 1},                      // 8
    {PUSH, .a = 0},                     // 9
    {ADD_I, .a = 1, .b = 1, .at = -2},  // 10
    {CALL, .at = 3},                    // 11
    {POP, .a = 2},                      // 12
    {ADD, .a = 0, .b = 0, .c = 2},      // 13
    {.op = RETURN},                     // 14
};

// The steps that all numbers below register 1 take to come to 1, in register 0.
static const struct insn collatz[] = {
    {SET, .a = 0, .at = 0},              // 0
    {SET, .a = 2, .at = 2},              // 1
    {SET, .a = 5, .at = 2},              // 2
    {SET, .a = 6, .at = 3},              // 3
    {MOVE, .a = 3, .b = 2},              // 4: for each number
    {LESS, .b = 3, .c = 5, .at = 13},    // 5: until it is 1
    {ADD_I, .a = 0, .b = 0, .at = 1},    // 6
    {AND_I, .a = 4, .b = 3, .at = 1},    // 7
    {ZERO, .b = 4, .at = 11},            // 8
    {MULTIPLY, .a = 3, .b = 3, .c = 6},  // 9
    {ADD_I, .a = 3, .b = 3, .at = 1},    // 10: odd: three times itself and 1, then half of it
    {SHIFT_I, .a = 3, .b = 3, .at = 1},  // 11
    {JUMP, .at = 5},                     // 12
    {ADD_I, .a = 2, .b = 2, .at = 1},    // 13
    {LESS, .b = 2, .c = 1, .at = 4},     // 14
    {.op = HALT},
};

static uint64_t *cell(struct machine *machine, uint64_t at)
{
    return &machine->memory[at % MEMORY];
}

static uint64_t execute(struct machine *machine, const struct insn *code, uint64_t argument)
{
    uint64_t *x = machine->registers;
    uint64_t sp = MEMORY;
    uint32_t depth = 0;

    x[1] = argument;
    for (const struct insn *insn = code;; insn++) {
        switch ((enum op)insn->op) {
        case SET:
            x[insn->a] = (uint64_t)insn->at;
            break;
        case MOVE:
            x[insn->a] = x[insn->b];
            break;
        case ADD:
            x[insn->a] = x[insn->b] + x[insn->c];
            break;
        case ADD_I:
            x[insn->a] = x[insn->b] + (uint64_t)insn->at;
            break;
        case MULTIPLY:
            x[insn->a] = x[insn->b] * x[insn->c];
            break;
        case AND_I:
            x[insn->a] = x[insn->b] & (uint64_t)insn->at;
            break;
        case SHIFT_I:
            x[insn->a] = x[insn->b] >> insn->at;
            break;
        case LOAD:
            x[insn->a] = *cell(machine, x[insn->b]);
            break;
        case STORE:
            *cell(machine, x[insn->b]) = x[insn->a];
            break;
        case PUSH:
            *cell(machine, --sp) = x[insn->a];
            break;
        case POP:
            x[insn->a] = *cell(machine, sp++);
            break;
        case LESS:
            if (x[insn->b] < x[insn->c])
                insn = code + insn->at - 1;
            break;
        case ZERO:
            if (x[insn->b] == 0)
                insn = code + insn->at - 1;
            break;
        case JUMP:
            insn = code + insn->at - 1;
            break;
        case CALL:
            if (depth == CALLS)
                abort();
            machine->calls[depth++] = (uint32_t)(insn - code);
            insn = code + insn->at - 1;
            break;
        case RETURN:
            insn = code + machine->calls[--depth];
            break;
        case HALT:
            return x[0];
        }
    }
}

uint64_t kernel_run(unsigned long rounds)
{
    static struct machine machine;
    uint64_t sum = 0;

    for (unsigned long round = 0; round < rounds; round++) {
        sum = kernel_mix(sum, execute(&machine, sieve, MEMORY - round % 16));
        sum = kernel_mix(sum, execute(&machine, fibonacci, 18 + round % 4));
        sum = kernel_mix(sum, execute(&machine, collatz, 3000 + round % 16));
    }
    return sum;
}
