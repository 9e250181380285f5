// SPDX-License-Identifier: BSD-2-Clause
// Files that a program has mapped, by elfutils' libdwfl: each in a Dwfl of its own, at the
// addresses that it was linked for, so that nothing here changes when the program maps and unmaps.
//
// Nothing is taken from the environment or the network: elfutils' own search for debug information
// would ask a debuginfod server.
#include <dwarf.h>
#include <elfutils/libdwfl.h>
#include <errno.h>
#include <fcntl.h>
#include <libiberty/demangle.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>
#include <zlib.h>

#include "check/module.h"

#define DEBUG_FOLDER "/usr/lib/debug"

struct check_module {
    char *name, *path, *sysroot;
    struct stat file;  // when it was mapped
    bool unreadable;
    Dwfl *dwfl;
    Dwfl_Module *module;  // NULL: not open
};

// ---- Separate debug information -----------------------------------------------------------------

static int open_path(char **path_out, char *path)
{
    int fd = path ? open(path, O_RDONLY | O_CLOEXEC) : -1;

    if (fd < 0)
        free(path);
    else
        *path_out = path;
    return fd;
}

static char *__attribute__((format(printf, 1, 2))) format(const char *fmt, ...)
{
    va_list arguments;
    char *text;

    va_start(arguments, fmt);
    if (vasprintf(&text, fmt, arguments) < 0)
        text = NULL;
    va_end(arguments);
    return text;
}

// Below the sysroot, then where the host has its own (as of cross compilers' libraries).
static int open_by_build_id(const struct check_module *module, Dwfl_Module *dwfl_module,
                            char **path_out)
{
    const unsigned char *id;
    GElf_Addr gva;
    char hex[2 * 64 + 1] = "";
    int count = dwfl_module_build_id(dwfl_module, &id, &gva);

    if (count < 2 || count > 64)
        return -1;
    for (int i = 0; i < count; i++)
        snprintf(hex + 2 * i, 3, "%02x", id[i]);
    const char *const roots[] = {module->sysroot, ""};
    for (size_t i = 0; i < BASE_COUNT_OF(roots); i++) {
        char *path = format("%s" DEBUG_FOLDER "/.build-id/%.2s/%s.debug", roots[i], hex, hex + 2);
        int fd = open_path(path_out, path);
        if (fd >= 0)
            return fd;
    }
    return -1;
}

static bool checksum_is(int fd, uint32_t expected)
{
    uint8_t bytes[16384];
    uLong crc = crc32(0, NULL, 0);
    int64_t got;

    for (uint64_t at = 0; (got = fd_pread_full(fd, bytes, sizeof(bytes), at)) > 0;
         at += (uint64_t)got)
        crc = crc32(crc, bytes, (uInt)got);
    return got == 0 && (uint32_t)crc == expected;
}

// What .gnu_debuglink names: beside the file, in .debug beside it, or in a folder for all.
static int open_by_link(const struct check_module *module, const char *link, uint32_t crc,
                        char **path_out)
{
    const char *slash = strrchr(module->path, '/'), *guest_slash = strrchr(module->name, '/');
    int folder = slash ? (int)(slash - module->path) : 0;
    int guest_folder = guest_slash ? (int)(guest_slash - module->name) : 0;
    char *paths[] = {
        format("%.*s/%s", folder, module->path, link),
        format("%.*s/.debug/%s", folder, module->path, link),
        format("%s" DEBUG_FOLDER "%.*s/%s", module->sysroot, guest_folder, module->name, link),
        format(DEBUG_FOLDER "%.*s/%s", guest_folder, module->name, link),
    };
    int found = -1;

    if (strchr(link, '/'))
        link = NULL;
    for (size_t i = 0; i < BASE_COUNT_OF(paths); i++) {
        int fd = link && found < 0 ? open_path(path_out, paths[i]) : (free(paths[i]), -1);
        if (fd >= 0 && !checksum_is(fd, crc)) {
            close(fd);
            free(*path_out);
            *path_out = NULL;
            fd = -1;
        }
        if (fd >= 0)
            found = fd;
    }
    return found;
}

// What dwz(1) has moved out of several files into one of its own, named in .gnu_debugaltlink.
static int open_alternative(const struct check_module *module, const char *debug_path,
                            const char *name, char **path_out)
{
    const char *slash = debug_path ? strrchr(debug_path, '/') : NULL;

    if (name[0] != '/')
        return slash ? open_path(path_out,
                                 format("%.*s/%s", (int)(slash - debug_path), debug_path, name))
                     : -1;
    int fd = open_path(path_out, format("%s%s", module->sysroot, name));
    return fd < 0 ? open_path(path_out, strdup(name)) : fd;
}

static int debug_find(Dwfl_Module *dwfl_module, void **opaque, const char *name, Dwarf_Addr base,
                      const char *file_name, const char *link, GElf_Word crc, char **path_out)
{
    const struct check_module *module = *opaque;

    (void)name, (void)base;
    // libdwfl asks for an alternative file once it has the one that refers to it.
    if (link && crc == 0)
        return open_alternative(module, file_name, link, path_out);
    int fd = open_by_build_id(module, dwfl_module, path_out);
    return fd < 0 && link ? open_by_link(module, link, crc, path_out) : fd;
}

// ---- The file -----------------------------------------------------------------------------------

int check_module_create(struct check_module **out, const char *name, const char *path,
                        const char *sysroot)
{
    struct check_module *module = calloc(1, sizeof(*module));

    if (!module)
        return -ENOMEM;
    module->name = strdup(name);
    module->path = strdup(path);
    module->sysroot = strdup(sysroot ? sysroot : "");
    if (!module->name || !module->path || !module->sysroot) {
        check_module_destroy(module);
        return -ENOMEM;
    }
    if (stat(path, &module->file) < 0)
        module->unreadable = true;
    *out = module;
    return 0;
}

void check_module_close(struct check_module *module)
{
    if (module->dwfl)
        dwfl_end(module->dwfl);
    module->dwfl = NULL;
    module->module = NULL;
}

void check_module_destroy(struct check_module *module)
{
    check_module_close(module);
    free(module->name);
    free(module->path);
    free(module->sysroot);
    free(module);
}

const char *check_module_name(const struct check_module *module)
{
    return module->name;
}

static bool same_file(const struct stat *a, const struct stat *b)
{
    return a->st_dev == b->st_dev && a->st_ino == b->st_ino && a->st_size == b->st_size &&
           a->st_mtim.tv_sec == b->st_mtim.tv_sec && a->st_mtim.tv_nsec == b->st_mtim.tv_nsec;
}

bool check_module_is(const struct check_module *module, const char *name, const char *path)
{
    struct stat file;

    return strcmp(module->name, name) == 0 && strcmp(module->path, path) == 0 &&
           stat(path, &file) == 0 && same_file(&file, &module->file);
}

static Dwfl_Module *report_file(struct check_module *module, int fd)
{
    static const Dwfl_Callbacks callbacks = {
        .find_elf = dwfl_build_id_find_elf,
        .find_debuginfo = debug_find,
        .section_address = dwfl_offline_section_address,
    };
    GElf_Addr bias;
    void **opaque;

    module->dwfl = dwfl_begin(&callbacks);
    if (!module->dwfl)
        return NULL;
    dwfl_report_begin(module->dwfl);
    // libdwfl closes a descriptor that it has taken.
    Dwfl_Module *reported = dwfl_report_elf(module->dwfl, module->name, module->path, fd, 0, true);
    if (!reported) {
        close(fd);
        return NULL;
    }
    dwfl_report_end(module->dwfl, NULL, NULL);
    dwfl_module_info(reported, &opaque, NULL, NULL, NULL, NULL, NULL, NULL);
    *opaque = module;
    return dwfl_module_getelf(reported, &bias) && bias == 0 ? reported : NULL;
}

static int file_open(const struct check_module *module)
{
    int fd = open(module->path, O_RDONLY | O_CLOEXEC | O_NONBLOCK);
    struct stat file;

    if (fd >= 0 &&
        (fstat(fd, &file) < 0 || !S_ISREG(file.st_mode) || !same_file(&file, &module->file))) {
        close(fd);
        fd = -1;
    }
    return fd;
}

static Dwfl_Module *module_open(struct check_module *module)
{
    if (module->module || module->unreadable)
        return module->module;
    int fd = file_open(module);
    module->module = fd >= 0 ? report_file(module, fd) : NULL;
    module->unreadable = !module->module;
    return module->module;
}

bool check_module_address(struct check_module *module, uint64_t offset, uint64_t *address)
{
    Dwfl_Module *opened = module_open(module);
    GElf_Addr bias;
    Elf *elf = opened ? dwfl_module_getelf(opened, &bias) : NULL;
    bool found = false;
    size_t count;

    if (!elf || elf_getphdrnum(elf, &count) < 0)
        return false;
    // Two segments may share a page; code is what is asked for.
    for (size_t i = 0; i < count; i++) {
        GElf_Phdr header;
        if (!gelf_getphdr(elf, (int)i, &header) || header.p_type != PT_LOAD)
            continue;
        uint64_t before = header.p_offset % 4096, start = header.p_offset - before;
        if (offset < start || offset - start >= header.p_filesz + before)
            continue;
        if (!found || (header.p_flags & PF_X))
            *address = offset - start + header.p_vaddr - before;
        found = true;
        if (header.p_flags & PF_X)
            break;
    }
    return found;
}

// ---- Functions and lines ------------------------------------------------------------------------

// The compilation unit: by .debug_aranges, which gcc writes and clang does not, else by looking at
// all of them.
static Dwarf_Die *unit_find(Dwfl_Module *module, uint64_t address)
{
    Dwarf_Addr bias;
    Dwarf_Die *unit = dwfl_module_addrdie(module, address, &bias);

    if (unit)
        return unit;
    while ((unit = dwfl_module_nextcu(module, unit, &bias)))
        if (dwarf_haspc(unit, address) > 0)
            return unit;
    return NULL;
}

static const char *path_in_unit(Dwarf_Die *unit, const char *path, struct check_strings *strings)
{
    Dwarf_Attribute attribute;
    const char *folder = dwarf_formstring(dwarf_attr(unit, DW_AT_comp_dir, &attribute));

    if (!path || path[0] == '/' || !folder)
        return path;
    char *joined = format("%s/%s", folder, path);
    const char *kept = joined ? check_strings_keep(strings, joined) : NULL;
    free(joined);
    return kept ? kept : path;
}

static const char *name_readable(const char *name, struct check_strings *strings)
{
    char *text = name && name[0] == '_' ? cplus_demangle(name, DMGL_PARAMS | DMGL_ANSI) : NULL;
    const char *kept = text ? check_strings_keep(strings, text) : NULL;

    free(text);
    return kept ? kept : name;
}

static const char *name_of(Dwarf_Die *die, struct check_strings *strings)
{
    Dwarf_Attribute attribute;
    const char *linkage =
        dwarf_formstring(dwarf_attr_integrate(die, DW_AT_linkage_name, &attribute));

    return linkage ? name_readable(linkage, strings) : dwarf_diename(die);
}

static unsigned number_of(Dwarf_Die *die, unsigned attribute_name)
{
    Dwarf_Attribute attribute;
    Dwarf_Word value;

    return dwarf_formudata(dwarf_attr(die, attribute_name, &attribute), &value) == 0
               ? (unsigned)value
               : 0;
}

// Where an inlined function is called from.
static void call_place(Dwarf_Die *unit, Dwarf_Die *inlined, struct check_strings *strings,
                       struct check_frame *frame)
{
    Dwarf_Files *files;
    size_t count;

    frame->file = NULL;
    if (dwarf_getsrcfiles(unit, &files, &count) == 0)
        frame->file = path_in_unit(
            unit, dwarf_filesrc(files, number_of(inlined, DW_AT_call_file), NULL, NULL), strings);
    frame->line = number_of(inlined, DW_AT_call_line);
    frame->column = number_of(inlined, DW_AT_call_column);
}

// Is it a wrapper that is to be taken for its caller (GCC's attribute `artificial`)? What compilers
// have made themselves is called so, too: members of classes, of which some (a lambda's operator
// (), a constructor's initializers) have lines in the source.
static bool is_artificial(Dwarf_Die *inlined)
{
    Dwarf_Attribute attribute;
    bool artificial = false;

    return dwarf_formflag(dwarf_attr_integrate(inlined, DW_AT_artificial, &attribute),
                          &artificial) == 0 &&
           artificial && !dwarf_hasattr_integrate(inlined, DW_AT_object_pointer);
}

// Fills a frame for each function that encloses the address, the innermost first. frames[0] has the
// place in the source already.
static size_t functions_of(Dwarf_Die *unit, uint64_t address, struct check_strings *strings,
                           struct check_frame *frames, size_t max)
{
    Dwarf_Die *innermost = NULL, *scopes = NULL;
    size_t used = 0;

    if (dwarf_getscopes(unit, address, &innermost) <= 0)
        return 0;
    int count = dwarf_getscopes_die(&innermost[0], &scopes);
    for (int i = 0; i < count; i++) {
        bool inlined = dwarf_tag(&scopes[i]) == DW_TAG_inlined_subroutine;
        if (!inlined && dwarf_tag(&scopes[i]) != DW_TAG_subprogram)
            continue;
        if (inlined && is_artificial(&scopes[i])) {
            call_place(unit, &scopes[i], strings, &frames[used]);
            continue;
        }
        frames[used].function = name_of(&scopes[i], strings);
        frames[used].inlined = inlined;
        used++;
        if (!inlined || used == max)
            break;
        call_place(unit, &scopes[i], strings, &frames[used]);
    }
    if (count > 0)
        free(scopes);
    free(innermost);
    return used;
}

// The assembler marks what is code by symbols like "$xrv64i2p1", which hide a label without a size.
static const char *symbol_before(Dwfl_Module *module, uint64_t address, uint64_t *start,
                                 uint64_t *bytes)
{
    const char *best = NULL;
    GElf_Addr value;
    GElf_Sym symbol;
    GElf_Word section;

    *start = 0;
    for (int i = 1, count = dwfl_module_getsymtab(module); i < count; i++) {
        const char *name =
            dwfl_module_getsym_info(module, i, &symbol, &value, &section, NULL, NULL);
        unsigned type = GELF_ST_TYPE(symbol.st_info);
        if (!name || !name[0] || name[0] == '$' || (type != STT_NOTYPE && type != STT_FUNC) ||
            section == SHN_UNDEF || value > address || value < *start ||
            (symbol.st_size && address - value >= symbol.st_size))
            continue;
        best = name;
        *start = value;
        *bytes = symbol.st_size;
    }
    return best;
}

static const char *symbol_at(Dwfl_Module *module, uint64_t address, uint64_t *start,
                             uint64_t *bytes)
{
    GElf_Off offset = 0;
    GElf_Sym symbol;
    const char *name = dwfl_module_addrinfo(module, address, &offset, &symbol, NULL, NULL, NULL);

    *start = address - offset;
    *bytes = name ? symbol.st_size : 0;
    return name && name[0] == '$' ? symbol_before(module, address, start, bytes) : name;
}

static bool ends_in(const char *name, const char *end)
{
    size_t length = strlen(name), end_length = strlen(end);
    return end_length < length && strcmp(name + length - end_length, end) == 0;
}

// What programs call it: libc's functions have names of its own as well, as __libc_free is free.
static const char *usual_name(Dwfl_Module *module, const char *name, uint64_t start)
{
    GElf_Addr value;
    GElf_Sym symbol;

    if (!name || name[0] != '_')
        return name;
    for (int i = 1, count = dwfl_module_getsymtab(module); i < count; i++) {
        const char *other = dwfl_module_getsym_info(module, i, &symbol, &value, NULL, NULL, NULL);
        if (other && other[0] && other[0] != '_' && value == start && ends_in(name, other))
            return other;
    }
    return name;
}

size_t check_module_resolve(struct check_module *module, uint64_t address,
                            struct check_strings *strings, struct check_frame *frames, size_t max)
{
    Dwfl_Module *opened = module_open(module);
    Dwarf_Die *unit = opened ? unit_find(opened, address) : NULL;
    Dwarf_Line *line = unit ? dwarf_getsrc_die(unit, address) : NULL;
    int number = 0, column = 0;
    uint64_t start, bytes;

    if (!opened)
        return 0;
    if (line) {
        frames[0].file = path_in_unit(unit, dwarf_linesrc(line, NULL, NULL), strings);
        dwarf_lineno(line, &number);
        dwarf_linecol(line, &column);
        frames[0].line = (unsigned)number;
        frames[0].column = (unsigned)column;
    }
    size_t count = unit ? functions_of(unit, address, strings, frames, max) : 0;
    if (count > 0)
        return count;
    const char *name = symbol_at(opened, address, &start, &bytes);
    frames[0].function = name_readable(usual_name(opened, name, start), strings);
    return frames[0].function || line ? 1 : 0;
}

bool check_module_function(struct check_module *module, uint64_t address, uint64_t *start,
                           uint64_t *bytes)
{
    Dwfl_Module *opened = module_open(module);

    return opened && symbol_at(opened, address, start, bytes);
}

// ---- Call frame information ---------------------------------------------------------------------

enum { REGISTER_FP = 8 };

static bool offset_fits(Dwarf_Word offset)
{
    return (int64_t)offset == (int32_t)offset;
}

// "Register and offset", as libdw puts it into an expression.
static bool cfa_rule(Dwarf_Frame *frame, struct check_row *row)
{
    Dwarf_Op *ops;
    size_t count;

    if (dwarf_frame_cfa(frame, &ops, &count) != 0 || count != 1)
        return false;
    bool extended = ops[0].atom == DW_OP_bregx;
    Dwarf_Word number = extended ? ops[0].number : (Dwarf_Word)ops[0].atom - DW_OP_breg0;
    Dwarf_Word offset = extended ? ops[0].number2 : ops[0].number;
    if (number >= 32 || !offset_fits(offset))
        return false;
    row->cfa_register = (uint8_t)number;
    row->cfa_offset = (int32_t)offset;
    return true;
}

enum rule { RULE_SAME, RULE_SAVED, RULE_UNDEFINED, RULE_OTHER };

// What the caller had in a register. "At the CFA and an offset" is an expression of one or two
// operations here; libdw tells undefined from unchanged by where it says that no operations are.
static enum rule register_rule(Dwarf_Frame *frame, int number, int32_t *offset)
{
    Dwarf_Op memory[3], *ops;
    size_t count;

    if (dwarf_frame_register(frame, number, memory, &ops, &count) != 0)
        return RULE_OTHER;
    if (count == 0)
        return ops ? RULE_UNDEFINED : RULE_SAME;
    if (ops[0].atom != DW_OP_call_frame_cfa || count > 2)
        return RULE_OTHER;
    *offset = 0;
    if (count == 2) {
        if (ops[1].atom != DW_OP_plus_uconst || !offset_fits(ops[1].number))
            return RULE_OTHER;
        *offset = (int32_t)ops[1].number;
    }
    return RULE_SAVED;
}

static bool row_fill(Dwarf_Frame *frame, struct check_row *row)
{
    int ra = dwarf_frame_info(frame, NULL, NULL, NULL);

    if (ra < 0 || ra >= 32)
        return false;
    enum rule ra_rule = register_rule(frame, ra, &row->ra_offset);
    enum rule fp_rule = register_rule(frame, REGISTER_FP, &row->fp_offset);
    row->state = ra_rule == RULE_UNDEFINED ? CHECK_ROW_OUTERMOST : CHECK_ROW_OK;
    row->ra_register = (uint8_t)ra;
    row->ra_saved = ra_rule == RULE_SAVED;
    row->fp_saved = fp_rule == RULE_SAVED;
    return ra_rule == RULE_UNDEFINED ||
           (cfa_rule(frame, row) && ra_rule != RULE_OTHER && fp_rule != RULE_OTHER);
}

struct check_row check_module_row(struct check_module *module, uint64_t address)
{
    Dwfl_Module *opened = module_open(module);
    struct check_row row = {0}, none = {0};
    Dwarf_Frame *frame = NULL;
    Dwarf_Addr bias;

    if (!opened)
        return none;
    Dwarf_CFI *cfi = dwfl_module_eh_cfi(opened, &bias);
    if (!cfi || dwarf_cfi_addrframe(cfi, address - bias, &frame) != 0) {
        cfi = dwfl_module_dwarf_cfi(opened, &bias);
        if (!cfi || dwarf_cfi_addrframe(cfi, address - bias, &frame) != 0)
            return none;
    }
    bool filled = row_fill(frame, &row);
    free(frame);
    return filled ? row : none;
}
