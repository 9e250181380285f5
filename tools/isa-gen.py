#!/usr/bin/env python3
# SPDX-License-Identifier: BSD-2-Clause
"""Generate the isa room's header and C file from its two tables.

usage: isa-gen.py instructions.tbl csrs.tbl isa-generated.h isa-generated.c

The tables' own comments describe their columns. Whatever is inconsistent in them is reported as
FILE:LINE: what, and nothing is written.

The header defines three lists for the enumerations and tables in isa.h and isa.c:
    ISA_OP_LIST(X)    X(ADDI, "addi", flags)
    ISA_FORM_LIST(X)  X(C_ADDI, "c.addi", "C", operation)
    ISA_CSR_LIST(X)   X(MSTATUS, 0x300, "mstatus", "Sm", "machine status")
The C file defines what src/isa/tables.h declares: isa_forms, isa_form_find, isa_immediate.
"""
import re
import sys
from dataclasses import dataclass, field

REGISTER_LETTERS = {'d': 'rd', 's': 'rs1', 't': 'rs2', 'r': 'rs3', 'm': 'rm'}
EFFECTS = ('branch', 'jump', 'load', 'store', 'system')

# A word in an operand template: the field that it shows, the operation flag that it implies, and
# what stands for it in the disassembler's format string (isa.c, write_operand).
OPERANDS = {
    'rd': ('rd', 'RD', '%d'), 'rs1': ('rs1', 'RS1', '%s'), 'rs2': ('rs2', 'RS2', '%t'),
    'frd': ('rd', 'FRD', '%D'), 'frs1': ('rs1', 'FRS1', '%S'), 'frs2': ('rs2', 'FRS2', '%T'),
    'frs3': ('rs3', 'FRS3', '%R'), 'imm': ('imm', None, '%i'), 'shamt': ('imm', None, '%x'),
    'hi20': ('imm', None, '%u'), 'target': ('imm', None, '%p'), 'csr': ('imm', None, '%c'),
    'pred': ('imm', None, '%P'), 'succ': ('imm', None, '%Q'), 'zimm': ('rs1', None, '%z'),
    ',rm': ('rm', 'ROUNDS', '%m'), ',rm-exact': ('rm', 'ROUNDS', '%M'), '.aqrl': ('rm', 'ATOMIC', '%a'),
}
WORD = re.compile(r',rm-exact|,rm|\.aqrl|[a-z][a-z0-9]*')


class TableError(Exception):
    def __init__(self, where, what):
        super().__init__(f'{where}: {what}')


@dataclass
class Register:
    """A register or rm field: value = (raw >> shift & mask) + base."""
    shift: int = 0
    mask: int = 0
    base: int = 0


@dataclass
class Immediate:
    name: str
    signed: bool
    slices: list  # (highest bit, lowest bit) in the instruction, most significant first
    zeros: int

    def mask(self):
        return sum(field_mask(high, low) for high, low in self.slices)

    def expression(self):
        position = self.zeros + sum(high - low + 1 for high, low in self.slices)
        width, terms = position, []
        for high, low in self.slices:
            position -= high - low + 1
            terms.append(f'bits(raw, {high}, {low})' + (f' << {position}' if position else ''))
        value = ' | '.join(terms)
        return f'sign_extend({value}, {width})' if self.signed else f'(int32_t)({value})'


@dataclass
class Form:
    where: str
    mnemonic: str
    extension: str
    length: int
    mask: int
    match: int
    letters: dict  # letter -> (highest bit, lowest bit), or for i the mask
    immediate: str
    operands: str
    effects: list = field(default_factory=list)
    over: list = field(default_factory=list)
    nonzero: int = 0
    most: int = 0
    expansion: str = None  # of the `is` clause
    op: str = None
    fields: dict = None

    def contains(self, other):
        return self.length == other.length and self.mask & other.mask == self.mask \
            and other.match & self.mask == self.match

    def overlaps(self, other):
        both = self.mask & other.mask
        return self.length == other.length and self.match & both == other.match & both


def identifier(name):
    return re.sub(r'[^A-Z0-9]', '_', name.upper())


def field_mask(high, low):
    return (2 << high) - (1 << low)


def table_rows(path):
    """Yield (where, line, columns) of each row that is not blank and not a comment."""
    with open(path, encoding='utf-8') as file:
        for number, line in enumerate(file, 1):
            line = line.rstrip()
            if line and not line.startswith('#'):
                yield f'{path}:{number}', line, re.split(r' {2,}', line)


# ---- instructions.tbl

def parse_immediate(where, line):
    words = line.split()
    if len(words) < 4 or words[2] not in ('signed', 'unsigned'):
        raise TableError(where, 'expected "immediate NAME signed|unsigned BITS"')
    slices, zeros = [], 0
    for word in words[3:]:
        if re.fullmatch(r'<<\d+', word) and word is words[-1]:
            zeros = int(word[2:])
        elif re.fullmatch(r'\d+(:\d+)?', word):
            high, low = (word.split(':') * 2)[:2]
            slices.append((int(high), int(low)))
        else:
            raise TableError(where, f'"{word}" is not a bit, a range of bits or a final <<N')
    seen = 0
    for high, low in slices:
        if not 31 >= high >= low or seen & field_mask(high, low):
            raise TableError(where, f'bits {high}:{low} are out of order or used twice')
        seen |= field_mask(high, low)
    return Immediate(words[1], words[2] == 'signed', slices, zeros)


def bits_of(encoding, characters):
    return int(''.join('1' if bit in characters else '0' for bit in encoding), 2)


def parse_encoding(where, text):
    """Return (length, mask, match, letters) of an encoding such as '000 i ddddd iiiii 01'."""
    bits = text.replace(' ', '')
    if len(bits) not in (16, 32) or not re.fullmatch('[01dstrim-]+', bits):
        raise TableError(where, f'encoding is not 16 or 32 of "01dstrim-": {text}')
    mask, match = bits_of(bits, '01'), bits_of(bits, '1')
    if (match & mask & 3 == 3) != (len(bits) == 32) or mask & 3 != 3:
        raise TableError(where, 'the low two bits do not agree with the length')
    letters = {}
    for letter in REGISTER_LETTERS:
        places = [len(bits) - 1 - i for i, bit in enumerate(bits) if bit == letter]
        if not places:
            continue
        if len(places) != places[0] - places[-1] + 1:
            raise TableError(where, f'the bits of "{letter}" are not contiguous')
        if letter != 'm' and len(places) not in (3, 5):
            raise TableError(where, f'register "{letter}" has {len(places)} bits')
        letters[letter] = (places[0], places[-1])
    if 'i' in bits:
        letters['i'] = bits_of(bits, 'i')
    return len(bits) // 8, mask, match, letters


def parse_notes(form, text):
    for clause in re.split(r'; *', text) if text != '-' else ():
        kind, _, rest = clause.partition(' ')
        if kind in EFFECTS and not rest:
            form.effects.append(kind)
        elif kind == 'over' and rest:
            form.over.append(rest)
        elif kind == 'is' and rest:
            form.expansion = rest
        elif kind == 'reserved' and re.fullmatch(r'(imm|rd|rs1)=0', rest):
            form.nonzero = zero_field(form, rest.partition('=')[0])
        elif kind == 'reserved' and re.fullmatch(r'imm>[1-9][0-9]*', rest):
            zero_field(form, 'imm')
            form.most = int(rest.partition('>')[2])
        else:
            raise TableError(form.where, f'unknown note "{clause}"')


def zero_field(form, name):
    letter = {'imm': 'i', 'rd': 'd', 'rs1': 's'}[name]
    if letter not in form.letters:
        raise TableError(form.where, f'there is no {name} in the encoding')
    return form.letters['i'] if letter == 'i' else field_mask(*form.letters[letter])


def parse_form(where, columns, immediates):
    if len(columns) != 6:
        raise TableError(where, f'expected 6 columns, found {len(columns)}')
    mnemonic, extension, encoding, immediate, operands, notes = columns
    form = Form(where, mnemonic, extension, *parse_encoding(where, encoding),
                None if immediate == '-' else immediate, '' if operands == '-' else operands)
    if form.immediate and form.immediate not in immediates:
        raise TableError(where, f'unknown immediate layout "{immediate}"')
    if form.immediate is None and 'i' in form.letters:
        raise TableError(where, 'the encoding has an immediate, the row names no layout')
    if form.immediate:
        wanted = immediates[form.immediate].mask()
        if form.letters.get('i', 0) != wanted & ~form.mask:
            raise TableError(where, f'"{immediate}" does not lie where the encoding has its i bits')
    parse_notes(form, notes)
    return form


def own_fields(form):
    """The fields of a form as its own encoding gives them."""
    fields = {name: Register() for name in REGISTER_LETTERS.values()}
    for letter, name in REGISTER_LETTERS.items():
        if letter in form.letters:
            high, low = form.letters[letter]
            compressed = letter != 'm' and high - low == 2
            fields[name] = Register(low, (2 << high - low) - 1, 8 if compressed else 0)
    fields['imm'] = form.immediate
    return fields


def check_operands(form):
    """The operand template shows each field of the encoding, and no other."""
    shown = {OPERANDS[word][0] for word in WORD.findall(form.operands) if word in OPERANDS}
    present = {REGISTER_LETTERS.get(letter, 'imm') for letter in form.letters}
    if form.mnemonic == 'fence':
        present.discard('rm')  # fm has no syntax but that of fence.tso
    if shown != present:
        raise TableError(form.where, f'operands show {sorted(shown)}, '
                                     f'the encoding has {sorted(present)}')


def expand_fields(form, base, arguments):
    """The fields of `form`, which performs `base` with `arguments`, say 'rd,x0,imm'."""
    pieces = re.split(r'([,()])', base.operands)
    values = re.split(r'([,()])', arguments)
    if len(pieces) != len(values) or pieces[1::2] != values[1::2]:
        raise TableError(form.where, f'"{arguments}" does not fit "{base.operands}" of '
                                     f'{base.mnemonic}, {base.where}')
    own = own_fields(form)
    fields = {name: Register() for name in REGISTER_LETTERS.values()}
    fields['imm'] = None
    for piece, value in zip(pieces[::2], values[::2]):
        if piece == value == '':
            continue
        target = OPERANDS[piece][0]
        if value in OPERANDS and (OPERANDS[value][0] == 'imm') == (target == 'imm'):
            fields[target] = own[OPERANDS[value][0]]
        elif re.fullmatch(r'x\d+', value) and target != 'imm':
            fields[target] = Register(base=int(value[1:]))
        elif value != '0' or target != 'imm':
            raise TableError(form.where, f'"{value}" cannot stand for {piece} of {base.mnemonic}')
    return fields


def resolve_forms(forms):
    """Set op and fields of each form."""
    bases = {form.mnemonic: form for form in forms if form.expansion is None}
    for form in forms:
        name, _, arguments = (form.expansion or form.mnemonic).partition(' ')
        if name not in bases:
            raise TableError(form.where, f'no operation "{name}"')
        form.op = name
        if form.expansion and arguments:
            form.fields = expand_fields(form, bases[name], arguments)
        else:
            form.fields = own_fields(bases[name])
        if form.expansion is None or arguments:
            check_operands(form)
        if form.expansion and form.effects:
            raise TableError(form.where, f'effects belong to the row of {name}')


def check_overlaps(forms):
    by_name = {}
    for form in forms:
        if form.mnemonic in by_name:
            raise TableError(form.where, f'"{form.mnemonic}" is also {by_name[form.mnemonic].where}')
        by_name[form.mnemonic] = form
    for form in forms:
        for name in form.over:
            if name not in by_name or not by_name[name].contains(form):
                raise TableError(form.where, f'is not a special case of "{name}"')
    for number, first in enumerate(forms):
        for second in forms[:number]:
            if first.overlaps(second) and first.mnemonic not in second.over \
                    and second.mnemonic not in first.over:
                raise TableError(first.where, f'"{first.mnemonic}" overlaps '
                                              f'"{second.mnemonic}", {second.where}')


def parse_instructions(path):
    immediates, forms = {}, []
    for where, line, columns in table_rows(path):
        if line.startswith('immediate '):
            immediate = parse_immediate(where, line)
            if immediate.name in immediates:
                raise TableError(where, f'immediate "{immediate.name}" is already defined')
            immediates[immediate.name] = immediate
        else:
            forms.append(parse_form(where, columns, immediates))
    resolve_forms(forms)
    check_overlaps(forms)
    unused = set(immediates) - {form.immediate for form in forms}
    if unused:
        raise TableError(path, f'immediate layouts that no row uses: {sorted(unused)}')
    return immediates, forms


def op_flags(form):
    flags = [effect.upper() for effect in form.effects]
    if form.extension in ('F', 'D'):
        flags.append('FP')
    for word in WORD.findall(form.operands):
        flag = OPERANDS[word][1] if word in OPERANDS else None
        if flag:
            flags.append(flag)
    return ' | '.join('ISA_' + flag for flag in flags) or '0'


# ---- csrs.tbl

def parse_csrs(path):
    """Return (number, name, extension, meaning) of each CSR, ordered by number."""
    csrs, names = {}, set()
    for where, _, columns in table_rows(path):
        if len(columns) != 4 or not re.fullmatch(r'0x[0-9a-f]{3}', columns[0]):
            raise TableError(where, 'expected "0xNNN  NAME  EXTENSION  MEANING"')
        number, name, extension, meaning = columns
        match = re.fullmatch(r'([a-z]+[0-9]?)(?:\{(\d+)\.\.(\d+)\})?', name)
        if not match:
            raise TableError(where, f'"{name}" is not a CSR name')
        stem, first, last = match.groups()
        members = [stem] if first is None else \
            [f'{stem}{n}' for n in range(int(first), int(last) + 1)]
        for offset, member in enumerate(members):
            if int(number, 16) + offset in csrs or member in names:
                raise TableError(where, f'number or name of "{member}" is used twice')
            csrs[int(number, 16) + offset] = (member, extension, meaning)
            names.add(member)
    return [(number, *csrs[number]) for number in sorted(csrs)]


# ---- Output

def decision_tree(forms, tested, indent):
    """C statements that return the form of `raw`, whose bits in `tested` are known to match."""
    pad = '    ' * indent
    common = ~tested & 0xffffffff
    for form in forms:
        common &= form.mask
    if common and len(forms) > 1:
        return switch_on(widest_run(forms, common), forms, tested, indent)
    # A form without untested bits left is the most general one and comes last.
    lines = []
    for form in sorted(forms, key=lambda form: -bin(form.mask).count('1')):
        rest = form.mask & ~tested
        if rest:
            lines.append(f'{pad}if ((raw & {rest:#010x}) == {form.match & rest:#010x})')
            lines.append(f'{pad}    return {form_result(form)};')
        else:
            lines.append(f'{pad}return {form_result(form)};')
            return lines
    return lines + [f'{pad}return ISA_FORM_ILLEGAL;']


def form_result(form):
    name = 'ISA_FORM_' + identifier(form.mnemonic)
    if form.nonzero:
        return f'raw & {form.nonzero:#x} ? {name} : ISA_FORM_ILLEGAL'
    if form.most:
        layout = 'IMM_' + identifier(form.fields['imm'])
        return f'isa_immediate({layout}, raw) <= {form.most} ? {name} : ISA_FORM_ILLEGAL'
    if form.fields['rm'].mask == 7:
        return f'rounding_valid(raw) ? {name} : ISA_FORM_ILLEGAL'
    return name


def widest_run(forms, mask):
    """The contiguous run of bits in `mask` that tells most forms apart."""
    runs = [(match.end() - 1, match.start())
            for match in re.finditer('1+', bin(mask)[:1:-1])]
    return max(runs, key=lambda run: (len({form.match & field_mask(*run) for form in forms}),
                                      run[0] - run[1]))


def switch_on(run, forms, tested, indent):
    pad = '    ' * indent
    high, low = run
    groups = {}
    for form in forms:
        groups.setdefault(form.match >> low & (2 << high - low) - 1, []).append(form)
    lines = [f'{pad}switch (bits(raw, {high}, {low})) {{']
    for value in sorted(groups):
        lines.append(f'{pad}case {value:#x}:')
        lines += decision_tree(groups[value], tested | field_mask(high, low), indent + 1)
    return lines + [f'{pad}}}', f'{pad}return ISA_FORM_ILLEGAL;']


def form_row(form):
    registers = ' '.join(
        f'.{name} = {{{reg.shift}, {reg.mask}, {reg.base}}},'
        for name, reg in ((name, form.fields[name]) for name in REGISTER_LETTERS.values())
        if reg != Register())
    immediate = f' .immediate = IMM_{identifier(form.fields["imm"])},' if form.fields['imm'] else ''
    text = WORD.sub(lambda word: OPERANDS.get(word[0], (0, 0, word[0]))[2], form.operands)
    return f'''    [ISA_FORM_{identifier(form.mnemonic)}] = {{
        .operands = "{text.replace('%a ', '%a')}",
        .match = {form.match:#010x}, .mask = {form.mask:#010x}, .nonzero = {form.nonzero:#x},
        .most = {form.most},
        .op = ISA_{identifier(form.op)}, .length = {form.length},{immediate}
        {registers}
    }},'''


def macro_list(name, entries):
    return f'#define {name}(X) \\\n    ' + ' \\\n    '.join(entries) + '\n'


def header(forms, csrs):
    ops = [f'X({identifier(form.mnemonic)}, "{form.mnemonic}", {op_flags(form)})'
           for form in forms if form.expansion is None]
    rows = [f'X({identifier(form.mnemonic)}, "{form.mnemonic}", "{form.extension}", '
            f'{identifier(form.op)})' for form in forms]
    registers = [f'X({identifier(name)}, {number:#05x}, "{name}", "{extension}", "{meaning}")'
                 for number, name, extension, meaning in csrs]
    return '\n'.join([
        '// Generated by tools/isa-gen.py from instructions.tbl and csrs.tbl.',
        '#pragma once', '',
        macro_list('ISA_OP_LIST', ops), macro_list('ISA_FORM_LIST', rows),
        macro_list('ISA_CSR_LIST', registers)])


def source(immediates, forms):
    trees = {length: decision_tree([form for form in forms if form.length == length], 0, 1)
             for length in (2, 4)}
    names = [f'IMM_{identifier(name)}' for name in immediates]
    cases = [f'    case IMM_{identifier(name)}:\n        return {immediates[name].expression()};'
             for name in immediates]
    return '\n'.join([
        '// Generated by tools/isa-gen.py from instructions.tbl and csrs.tbl.',
        '#include "isa/tables.h"', '',
        f'enum {{ IMM_NONE, {", ".join(names)} }};', '',
        'static inline uint32_t bits(uint32_t raw, unsigned high, unsigned low)', '{',
        '    return raw >> low & ((2u << (high - low)) - 1);', '}', '',
        'static inline int32_t sign_extend(uint32_t value, unsigned width)', '{',
        '    return (int32_t)(value << (32 - width)) >> (32 - width);', '}', '',
        '// Rounding modes 5 and 6 are reserved.',
        'static inline bool rounding_valid(uint32_t raw)', '{',
        '    return bits(raw, 14, 12) < 5 || bits(raw, 14, 12) == 7;', '}', '',
        'int32_t isa_immediate(unsigned layout, uint32_t raw)', '{', '    switch (layout) {',
        *cases, '    default:', '        return 0;', '    }', '}', '',
        'static enum isa_form find_compressed(uint32_t raw)', '{', *trees[2], '}', '',
        'static enum isa_form find_full(uint32_t raw)', '{', *trees[4], '}', '',
        'enum isa_form isa_form_find(uint32_t raw)', '{',
        '    return (raw & 3) == 3 ? find_full(raw) : find_compressed(raw & 0xffff);', '}', '',
        'const struct isa_form_info isa_forms[ISA_FORM_COUNT] = {',
        *(form_row(form) for form in forms), '};', ''])


def main(arguments):
    if len(arguments) != 4:
        sys.exit(__doc__.split('\n\n')[1])
    try:
        immediates, forms = parse_instructions(arguments[0])
        csrs = parse_csrs(arguments[1])
    except (TableError, OSError) as error:
        sys.exit(f'isa-gen: {error}')
    for path, text in zip(arguments[2:], (header(forms, csrs), source(immediates, forms))):
        with open(path, 'w', encoding='utf-8') as file:
            file.write(text)


if __name__ == '__main__':
    main(sys.argv[1:])
