// SPDX-License-Identifier: BSD-2-Clause
// The emitter, against binutils' disassembler: what each function emits must read as it should.
#include <stdio.h>
#include <unistd.h>

#include "jit/x64.h"
#include "unit.h"

#define W X64_W

// Emits one instruction of each form, with the registers whose encoding differs.
static void emit_all(struct x64 *x)
{
    const uint8_t *start = x64_here(x);

    x64_rr(x, X64_ADD | W, X64_RAX, X64_R15);
    x64_rr(x, X64_MOV, X64_R8, X64_RBX);
    x64_rr(x, X64_MOVSXD, X64_R9, X64_RDI);
    x64_rr(x, X64_MOVZX_8, X64_RAX, X64_RSI);
    x64_rr(x, X64_MOVSX_8, X64_RCX, X64_RDX);
    x64_rr(x, X64_MOVSX_16, X64_R10, X64_R11);
    x64_rr(x, X64_IMUL | W, X64_RDX, X64_R12);
    x64_rr(x, X64_LZCNT | W, X64_R13, X64_RAX);
    x64_rr(x, X64_TZCNT, X64_RAX, X64_R14);
    x64_rr(x, X64_POPCNT | W, X64_RBX, X64_RBP);
    x64_rr(x, X64_CMOV(X64_C_L) | W, X64_RAX, X64_R8);
    x64_rr(x, X64_BTS | W, X64_RCX, X64_R12);
    x64_rm(x, X64_MOV | W, X64_RAX, X64_RBP, 0);
    x64_rm(x, X64_MOV | W, X64_RAX, X64_RBP, -128);
    x64_rm(x, X64_MOV | W, X64_R15, X64_RBP, 128);
    x64_rm(x, X64_MOV, X64_RSI, X64_R13, 0);
    x64_rm(x, X64_MOV, X64_RSI, X64_R12, 0);
    x64_rm(x, X64_LEA | W, X64_RDI, X64_R12, 8);
    x64_rm(x, X64_LEA | W, X64_RDI, X64_RSP, 2047);
    x64_rm(x, X64_STORE_8, X64_RSI, X64_RAX, 0);
    x64_rm(x, X64_STORE_8, X64_RBX, X64_RAX, 0);
    x64_rm(x, X64_STORE_8, X64_R9, X64_RAX, 0);
    x64_rm(x, X64_STORE_16, X64_R9, X64_RAX, 0);
    x64_rm(x, X64_STORE_32, X64_RDI, X64_RAX, 0);
    x64_rm(x, X64_STORE_64, X64_RDI, X64_RAX, 0);
    x64_rip(x, X64_LEA | W, X64_RCX, start);
    x64_rip(x, X64_CMP | W, X64_R8, start + 0x1000);
    x64_lea_scaled(x, X64_RAX, X64_RDX, X64_RCX, 8);
    x64_lea_scaled(x, X64_R8, X64_R13, X64_R9, 1);
    x64_lea_scaled(x, X64_RBX, X64_R12, X64_RCX, 4);
    x64_rm_index(x, X64_MOV | W, X64_RAX, X64_RBP, X64_RCX, 0x1000);
    x64_rm_index(x, X64_STORE_8, X64_RSI, X64_R13, X64_R9, 0);
    x64_rm_index(x, X64_CMP | W, X64_R10, X64_RAX, X64_RCX, -8);
    x64_rm_twice(x, X64_CMP_16, X64_RCX, X64_RDX, 0x40000000);
    x64_rm_twice(x, X64_MOV, X64_R9, X64_R12, -16);
    x64_rorx(x, 0, X64_RCX, X64_RAX, 7);
    x64_rorx(x, W, X64_R9, X64_R15, 48);
    x64_vex(x, X64_SHLX | W, X64_RBX, X64_R9, X64_R15);
    x64_vex(x, X64_SHRX, X64_R10, X64_RCX, X64_RAX);
    x64_vex(x, X64_SARX | W, X64_RAX, X64_RSI, X64_RDX);
    x64_rr(x, X64_MOVQ_TO_XMM, 0, X64_R14);
    x64_rr(x, X64_PXOR, 1, 1);
    x64_rr(x, X64_PCMPEQB, 0, 1);
    x64_rr(x, X64_PUNPCKLQDQ, 0, 1);
    x64_rr(x, X64_PUNPCKHQDQ, 1, 0);
    x64_rr_imm(x, X64_PSHUFD, 0, 1, 0x55);
    x64_rr_imm(x, X64_PCLMULQDQ, 0, 1, 0x11);
    x64_rr_imm(x, X64_AESKEYGENASSIST, 1, 0, 0x1b);
    x64_rr(x, X64_AESIMC, 0, 0);
    x64_rr(x, X64_AESENC, 0, 1);
    x64_rr(x, X64_AESENCLAST, 0, 1);
    x64_rr(x, X64_AESDEC, 0, 1);
    x64_rr(x, X64_AESDECLAST, 1, 0);
    x64_mov_imm(x, X64_R9, 0);
    x64_mov_imm(x, X64_R9, 0xffffffff);
    x64_mov_imm(x, X64_RBX, (uint64_t)-2);
    x64_mov_imm(x, X64_RSI, 0x123456789abcdef0);
    x64_alu_imm(x, X64_I_ADD, W, X64_RAX, 127);
    x64_alu_imm(x, X64_I_CMP, 0, X64_R15, -129);
    x64_alu_mem_imm(x, X64_I_ADD, W, X64_RBP, 0x200, 3);
    x64_alu_mem_imm(x, X64_I_OR, 0, X64_RBP, 0x200, 0x6000);
    x64_test_mem_imm(x, X64_RBP, 4, 0x6000);
    x64_shift_imm(x, X64_SAR, 0, X64_R9, 31);
    x64_shift_imm(x, X64_ROR, W, X64_RAX, 63);
    x64_shift_cl(x, X64_SHL, W, X64_R10);
    x64_unary(x, X64_NOT, W, X64_RCX);
    x64_unary(x, X64_IDIV, 0, X64_RCX);
    x64_unary(x, X64_MUL, W, X64_R8);
    x64_sign_rdx(x, W);
    x64_sign_rdx(x, 0);
    x64_bswap(x, X64_R14);
    x64_setcc(x, X64_C_B, X64_RAX);
    x64_setcc(x, X64_C_GE, X64_RDI);
    x64_bit_imm(x, X64_BIT_INVERT, X64_R11, 63);
    x64_rr(x, X64_MOVQ_FROM_XMM, 0, X64_RAX);
    x64_vex(x, X64_VADD | X64_SD, 0, 1, 2);
    x64_vex(x, X64_VSQRT | X64_SS, 9, 1, 15);
    x64_vex(x, X64_VFNMADD | W, 8, 1, 2);
    x64_vex(x, X64_VUCOMISD, 1, 0, 9);
    x64_vex(x, X64_VCVT_FROM_INT | X64_SD | W, 3, 2, X64_R8);
    x64_vex(x, X64_VCVT_TRUNCATE | X64_SS, X64_RAX, 0, 3);
    x64_vex_rm(x, X64_VDIV | X64_SD, 12, 1, X64_RBP, 0x200);
    x64_vex_rm(x, X64_VMOV_LOAD | X64_SS, 0, 0, X64_R12, 0);
    x64_vex_rm(x, X64_VMOV_STORE | X64_SD, 11, 0, X64_RBP, -8);
    x64_vex_rm(x, X64_VFMSUB, 0, 1, X64_R13, 0);
    x64_vex_imm(x, X64_VPSHIFTQ, X64_PSLLQ, 2, 10, 63);
    x64_vex_imm(x, X64_VROUNDSD, 1, 1, 3, 9);
    x64_rm(x, X64_MXCSR, X64_LDMXCSR, X64_RBP, 8);
    x64_cmp_mem8_imm(x, X64_RBP, 0x200, 0);
    x64_rip_cmp8_imm(x, start, 1);
    x64_rip_mov8_imm(x, start, 0);
    x64_test_imm(x, X64_R9, 0x6000);
    x64_store_imm(x, X64_RBP, 0x200, -1);
    x64_lock(x);
    x64_rm(x, X64_CMPXCHG, X64_RCX, X64_RDX, 0);
    x64_lock(x);
    x64_rm(x, X64_XADD | W, X64_R9, X64_RDX, 0);
    x64_rm(x, X64_XCHG | W, X64_RCX, X64_RAX, 0);
    x64_lock(x);
    x64_rm(x, X64_AND_TO, X64_RCX, X64_RAX, 0);
    x64_push(x, X64_R12);
    x64_pop(x, X64_RBX);
    x64_full_fence(x);
    x64_call_mem(x, X64_RCX, 0);
    x64_jmp_mem(x, X64_RCX, 8);
    x64_jmp_reg(x, X64_R8);
    x64_jmp(x, start);
    x64_jcc(x, X64_C_NE, start);
    x64_call(x, start);
    x64_ret(x);
}

static const char *const expected[] = {
    "add rax,r15",
    "mov r8d,ebx",
    "movsxd r9,edi",
    "movzx eax,sil",
    "movsx rcx,dl",
    "movsx r10,r11w",
    "imul rdx,r12",
    "lzcnt r13,rax",
    "tzcnt eax,r14d",
    "popcnt rbx,rbp",
    "cmovl rax,r8",
    "bts r12,rcx",
    "mov rax,QWORD PTR [rbp+0x0]",
    "mov rax,QWORD PTR [rbp-0x80]",
    "mov r15,QWORD PTR [rbp+0x80]",
    "mov esi,DWORD PTR [r13+0x0]",
    "mov esi,DWORD PTR [r12]",
    "lea rdi,[r12+0x8]",
    "lea rdi,[rsp+0x7ff]",
    "mov BYTE PTR [rax],sil",
    "mov BYTE PTR [rax],bl",
    "mov BYTE PTR [rax],r9b",
    "mov WORD PTR [rax],r9w",
    "mov DWORD PTR [rax],edi",
    "mov QWORD PTR [rax],rdi",
    "lea rcx,[rip+*] # 0x0",
    "cmp r8,QWORD PTR [rip+*] # 0x1000",
    "lea rax,[rdx+rcx*8]",
    "lea r8,[r13+r9*1+0x0]",
    "lea rbx,[r12+rcx*4]",
    "mov rax,QWORD PTR [rbp+rcx*1+0x1000]",
    "mov BYTE PTR [r13+r9*1+0x0],sil",
    "cmp r10,QWORD PTR [rax+rcx*1-0x8]",
    "cmp cx,WORD PTR [rdx*2+0x40000000]",
    "mov r9d,DWORD PTR [r12*2-0x10]",
    "rorx ecx,eax,0x7",
    "rorx r9,r15,0x30",
    "shlx rbx,r15,r9",
    "shrx r10d,eax,ecx",
    "sarx rax,rdx,rsi",
    "movq xmm0,r14",
    "pxor xmm1,xmm1",
    "pcmpeqb xmm0,xmm1",
    "punpcklqdq xmm0,xmm1",
    "punpckhqdq xmm1,xmm0",
    "pshufd xmm0,xmm1,0x55",
    "pclmulhqhqdq xmm0,xmm1",
    "aeskeygenassist xmm1,xmm0,0x1b",
    "aesimc xmm0,xmm0",
    "aesenc xmm0,xmm1",
    "aesenclast xmm0,xmm1",
    "aesdec xmm0,xmm1",
    "aesdeclast xmm1,xmm0",
    "xor r9d,r9d",
    "mov r9d,0xffffffff",
    "mov rbx,0xfffffffffffffffe",
    "movabs rsi,0x123456789abcdef0",
    "add rax,0x7f",
    "cmp r15d,0xffffff7f",
    "add QWORD PTR [rbp+0x200],0x3",
    "or DWORD PTR [rbp+0x200],0x6000",
    "test DWORD PTR [rbp+0x4],0x6000",
    "sar r9d,0x1f",
    "ror rax,0x3f",
    "shl r10,cl",
    "not rcx",
    "idiv ecx",
    "mul r8",
    "cqo",
    "cdq",
    "bswap r14",
    "setb al",
    "setge dil",
    "btc r11,0x3f",
    "movq rax,xmm0",
    "vaddsd xmm0,xmm1,xmm2",
    "vsqrtss xmm9,xmm1,xmm15",
    "vfnmadd213sd xmm8,xmm1,xmm2",
    "vucomisd xmm1,xmm9",
    "vcvtsi2sd xmm3,xmm2,r8",
    "vcvttss2si eax,xmm3",
    "vdivsd xmm12,xmm1,QWORD PTR [rbp+0x200]",
    "vmovss xmm0,DWORD PTR [r12]",
    "vmovsd QWORD PTR [rbp-0x8],xmm11",
    "vfmsub213ss xmm0,xmm1,DWORD PTR [r13+0x0]",
    "vpsllq xmm2,xmm10,0x3f",
    "vroundsd xmm1,xmm1,xmm3,0x9",
    "ldmxcsr DWORD PTR [rbp+0x8]",
    "cmp BYTE PTR [rbp+0x200],0x0",
    "cmp BYTE PTR [rip+*],0x1 # 0x0",
    "mov BYTE PTR [rip+*],0x0 # 0x0",
    "test r9d,0x6000",
    "mov QWORD PTR [rbp+0x200],0xffffffffffffffff",
    "lock cmpxchg DWORD PTR [rdx],ecx",
    "lock xadd QWORD PTR [rdx],r9",
    "xchg QWORD PTR [rax],rcx",
    "lock and DWORD PTR [rax],ecx",
    "push r12",
    "pop rbx",
    "lock or DWORD PTR [rsp],0x0",
    "call QWORD PTR [rcx]",
    "jmp QWORD PTR [rcx+0x8]",
    "jmp r8",
    "jmp 0x0",
    "jne 0x0",
    "call 0x0",
    "ret",
};

// Leaves one blank where there are more, and a star for what is after "rip+" or "rip-".
static void simplify(char *text)
{
    char *to = text, *from = text;

    while (*from && *from != '\n') {
        if (*from == ' ' && (from[1] == ' ' || from[1] == '\n' || !from[1])) {
            from++;
        } else if (!strncmp(from, "rip", 3)) {
            memcpy(to, "rip+*", 5);
            to += 5;
            from += strcspn(from, "]");
        } else {
            *to++ = *from++;
        }
    }
    *to = '\0';
}

static void test_encodings(void **state)
{
    uint8_t code[1024];
    struct x64 x64 = {.out = code, .end = code + sizeof(code)};
    char path[] = "/tmp/jit-x64-XXXXXX", command[256], line[256];
    int fd = mkstemp(path);
    size_t count = 0;
    FILE *listing;

    (void)state;
    emit_all(&x64);
    assert_false(x64.full);
    assert_true(fd >= 0);
    assert_int_equal(write(fd, code, (size_t)(x64.out - code)), x64.out - code);
    close(fd);
    snprintf(command, sizeof(command),
             "objdump -D -b binary -m i386:x86-64 -M intel --no-show-raw-insn %s", path);
    listing = popen(command, "r");
    assert_non_null(listing);
    while (fgets(line, sizeof(line), listing)) {
        char *text = strstr(line, ":\t");

        if (!text)
            continue;
        simplify(text + 2);
        assert_true(count < BASE_COUNT_OF(expected));
        assert_string_equal(text + 2, expected[count++]);
    }
    assert_int_equal(pclose(listing), 0);
    unlink(path);
    assert_int_equal(count, BASE_COUNT_OF(expected));
}

// Forward jumps lead where they are bound to, also when code is executed elsewhere.
static void test_forward_jumps(void **state)
{
    uint8_t code[64];
    struct x64 x64 = {.out = code, .end = code + sizeof(code), .exec_offset = 0x1000};
    uint8_t *place = x64_jcc_forward(&x64, X64_C_E);
    int32_t displacement;

    (void)state;
    x64_ret(&x64);
    x64_ret(&x64);
    x64_bind(&x64, place);
    memcpy(&displacement, place, sizeof(displacement));
    assert_int_equal(displacement, 2);
    x64_patch(place, x64.exec_offset, place - 2 + x64.exec_offset);
    memcpy(&displacement, place, sizeof(displacement));
    assert_int_equal(displacement, -6);
}

static void test_full_buffer(void **state)
{
    uint8_t code[8] = {0};
    struct x64 x64 = {.out = code, .end = code + 4};

    (void)state;
    x64_ret(&x64);
    assert_false(x64.full);
    x64_mov_imm(&x64, X64_RAX, 0x123456789abcdef0);
    assert_true(x64.full);
    assert_ptr_equal(x64.out, x64.end);
    assert_int_equal(code[4], 0);
    assert_null(x64_jmp_forward(&x64));
    x64_bind(&x64, NULL);
}

// An address beyond 2 GiB cannot be reached relative to rip; that too is a buffer of no use.
static void test_too_far(void **state)
{
    uint8_t code[64];
    struct x64 x64 = {.out = code, .end = code + sizeof(code)};

    (void)state;
    x64_jmp(&x64, (const uint8_t *)((uintptr_t)code ^ 1ull << 33));
    assert_true(x64.full);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_encodings),
        cmocka_unit_test(test_forward_jumps),
        cmocka_unit_test(test_full_buffer),
        cmocka_unit_test(test_too_far),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
