# SPDX-License-Identifier: BSD-2-Clause
"""Programs with errors of memory, made of combinations: what goes wrong, with which type of elements, in memory
of which allocator, and by which way the pointer comes from there to where it is used.

A program holds many cases. `PROGRAM N bad` runs case N, `PROGRAM N good` its corrected twin, and `PROGRAM all
good` the twins of all cases.
"""

import itertools
import random

PRELUDE = """
#include <algorithm>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <cwchar>
#include <fcntl.h>
#include <malloc.h>
#include <map>
#include <memory>
#include <new>
#include <pthread.h>
#include <string>
#include <sys/uio.h>
#include <unistd.h>
#include <vector>
#define NOINLINE __attribute__((noinline))
template <typename V> static inline V hide(V value) { asm volatile("" : "+r"(value) : : "memory"); return value; }
static inline void use(const volatile void *p) { asm volatile("" : : "r"(p) : "memory"); }
static volatile long sum;
struct pair { int one, two; };
struct block { char text[24]; long number; };
typedef long long wide_int;
typedef void *pointer;
"""

# Name, type, a value of it.
TYPES = [("char", "char", "'A'"), ("wchar", "wchar_t", "L'A'"), ("short", "short", "(short)7"), ("int", "int", "7"),
         ("int64", "wide_int", "7"), ("double", "double", "7.5"), ("pair", "pair", "pair{1, 2}"),
         ("block", "block", "block{}"), ("pointer", "pointer", "nullptr")]

# Name, family, what allocates `count` elements of T as `data`, what frees it.
ALLOCATORS = [
    ("malloc", "malloc", "(T *)malloc(count * sizeof(T))", "free({})"),
    ("calloc", "malloc", "(T *)calloc(count, sizeof(T))", "free({})"),
    ("realloc", "malloc", "(T *)realloc(nullptr, count * sizeof(T))", "free({})"),
    ("reallocarray", "malloc", "(T *)reallocarray(nullptr, count, sizeof(T))", "free({})"),
    ("memalign", "malloc", "(T *)memalign(64, count * sizeof(T))", "free({})"),
    ("aligned_alloc", "malloc", "(T *)aligned_alloc(32, count * sizeof(T))", "free({})"),
    ("new_array", "new[]", "new T[count]", "delete[] {}"),
    ("new_nothrow", "new[]", "new (std::nothrow) T[count]", "delete[] {}"),
    ("operator_new", "new", "(T *)operator new(count * sizeof(T))", "operator delete((void *){})"),
]

# Ways from `data` to `p`: declarations, statements.
FLOWS = {
    "direct": ("", "T *p = data;"),
    "function": ("NOINLINE static T *pass_#(T *q) { return hide(q); }", "T *p = pass_#(data);"),
    "global": ("static T *global_#;", "global_# = data; use(&global_#); T *p = global_#;"),
    "pointer_to_pointer": ("", "T **at = hide(&data); T *p = *at;"),
    "structure": ("struct holder_# { int before; T *it; };\nNOINLINE static T *out_#(holder_# h) { return h.it; }",
                  "holder_# h = {1, data}; T *p = out_#(h);"),
    "structure_pointer": ("struct held_# { T *it; long after; };\n"
                          "NOINLINE static T *get_#(held_# *h) { return h->it; }",
                          "held_# h = {data, 2}; T *p = get_#(&h);"),
    "void_pointer": ("", "void *v = hide((void *)data); T *p = (T *)v;"),
    "array": ("NOINLINE static T *third_#(T **a) { return a[2]; }", "T *a[5] = {}; a[2] = data; T *p = third_#(a);"),
    "loop": ("", "T *p = nullptr; for (int k = 0; k < hide(1); k++) p = data;"),
    "while": ("", "T *p; while (true) { p = data; break; }"),
    "switch": ("", "T *p = nullptr; switch (hide(6)) { case 6: p = data; break; default: puts(\"no\"); }"),
    "goto": ("", "T *p; goto source_#; source_#: p = data;"),
    "condition": ("static int five_# = 5;", "T *p = nullptr; if (hide(five_#) == 5) p = data; else p = data + 1;"),
    "vector": ("", "std::vector<T *> all(3, data); T *p = all[hide(2)];"),
    "map": ("", "std::map<int, T *> all; all[1] = nullptr; all[2] = data; T *p = all[2];"),
    "class": ("class keeper_# { T *it; public: NOINLINE keeper_#(T *q) : it(q) {} NOINLINE T *get() { return it; } };",
              "keeper_# keeper(data); T *p = keeper.get();"),
    "virtual": ("struct base_# { virtual T *get(T *q) { return q + 1; } virtual ~base_#() = default; };\n"
                "struct derived_# : base_# { NOINLINE T *get(T *q) override { return q; } };",
                "derived_# derived; base_# *base = hide((base_# *)&derived); T *p = base->get(data);"),
    "function_pointer": ("NOINLINE static T *same_#(T *q) { return q; }",
                         "T *(*call)(T *) = hide(&same_#); T *p = call(data);"),
    "union": ("union both_# { T *one; void *two; };", "both_# u; u.one = hide(data); T *p = (T *)u.two;"),
    "reference": ("", "T *&alias = data; use(&alias); T *p = alias;"),
    "lambda": ("", "auto get = [data]() { return data; }; T *p = get();"),
    "on_heap": ("struct node_# { T *it; node_# *next; };",
                "node_# *node = new node_#{data, nullptr}; T *p = hide(node)->it; delete node;"),
    "integer": ("", "unsigned long number = (unsigned long)data; T *p = (T *)hide(number);"),
    "thread": ("NOINLINE static void *run_#(void *q) { return q; }",
               "pthread_t thread; void *back; pthread_create(&thread, nullptr, run_#, data);"
               " pthread_join(thread, &back); T *p = (T *)back;"),
    "string_copy": ("", "T *p; memcpy(&p, &data, sizeof(p));"),
    "string_move": ("", "T *pair_of[2] = {data, nullptr}; memmove(pair_of + 1, pair_of, sizeof(T *));"
                        " T *p = hide(pair_of[1]);"),
    "unique": ("struct leave_# { void operator()(T *) const {} };",
               "std::unique_ptr<T, leave_#> owner(data); T *p = owner.get();"),
    "exception": ("", "T *p = nullptr; try { throw data; } catch (T *caught) { p = caught; }"),
}

# At the ends of lines, which of them a report's stacks are to lead to.
MARKS = {"@": "access", "~": "allocated", "%": "freed"}

ANY, CHAR, WIDE, TEXTS = None, {"char"}, {"wchar"}, {"char", "wchar"}
NUMBERS = {"char", "wchar", "short", "int", "int64", "double"}

# Errors: name, kinds, types, whether `count` elements are allocated in full, what is done with p; `bad` says
# whether it goes wrong, `many` is `count` elements when it does not, and more when it does. @: where it happens.
ROOM = "T local[400]; memset((void *)local, 0, sizeof(local)); use(local);"
LETTERS = "char text[400]; memset(text, 'C', sizeof(text)); text[many - 1] = 0; use(text);"
WIDES = "wchar_t text[400]; wmemset(text, L'C', 400); text[many - 1] = 0; use(text);"
ENDS = "FILL\nif (!bad) p[count - 1] = 0;\n"
OVERFLOW = {"heap-buffer-overflow"}
UNDERFLOW = {"heap-buffer-underflow"}
FREED = {"heap-use-after-free"}

ERRORS = [
    # Writes beyond the end.
    ("loop", OVERFLOW, ANY, "for (size_t k = 0; k < many; k++) p[k] = VALUE; @"),
    ("loop_from", OVERFLOW, ANY, f"{ROOM}\nfor (size_t k = 0; k < many; k++) p[k] = local[k]; @"),
    ("index", OVERFLOW, ANY, "p[hide(many - 1)] = VALUE; @"),
    ("far_index", OVERFLOW, ANY, "p[hide(bad ? count + 5000 : count - 1)] = VALUE; @"),
    ("pointer_moves", OVERFLOW, ANY, "T *q = p; for (size_t k = 0; k < many; k++) *q++ = VALUE; @"),
    ("memcpy", OVERFLOW, ANY, f"{ROOM}\nmemcpy((void *)p, local, many * sizeof(T)); @"),
    ("memmove", OVERFLOW, ANY, f"{ROOM}\nmemmove((void *)p, local, many * sizeof(T)); @"),
    ("mempcpy", OVERFLOW, ANY, f"{ROOM}\nuse(mempcpy((void *)p, local, many * sizeof(T))); @"),
    ("memset", OVERFLOW, ANY, "memset((void *)p, 0, many * sizeof(T)); @"),
    ("memcpy_offset", OVERFLOW, ANY, f"{ROOM}\nmemcpy((void *)(p + 1), local, (many - 1) * sizeof(T)); @"),
    ("memccpy", OVERFLOW, CHAR, f"{LETTERS}\nuse(memccpy(p, text, 0, many)); @"),
    ("copy", OVERFLOW, ANY, f"{ROOM}\nstd::copy(local, local + many, p); @"),
    ("fill", OVERFLOW, ANY, "std::fill(p, p + many, VALUE); @"),
    ("readv", {"syscall-buffer-overflow"}, CHAR, "int zero = open(\"/dev/zero\", O_RDONLY); iovec part = {p, many};\n"
     "sum = readv(zero, &part, 1); @\nclose(zero);"),
    ("read", {"syscall-buffer-overflow"}, ANY, "int zero = open(\"/dev/zero\", O_RDONLY);\n"
     "sum = read(zero, p, many * sizeof(T)); @\nclose(zero);"),
    ("fread", OVERFLOW | {"syscall-buffer-overflow"}, ANY,
     "FILE *zero = fopen(\"/dev/zero\", \"r\");\nsum = fread(p, sizeof(T), many, zero); @\nfclose(zero);"),
    ("strcpy", OVERFLOW, CHAR, f"{LETTERS}\nstrcpy(p, text); @"),
    ("strncpy", OVERFLOW, CHAR, f"{LETTERS}\nstrncpy(p, text, many); @"),
    ("stpcpy", OVERFLOW, CHAR, f"{LETTERS}\nuse(stpcpy(p, text)); @"),
    ("stpncpy", OVERFLOW, CHAR, f"{LETTERS}\nuse(stpncpy(p, text, many)); @"),
    ("strcat", OVERFLOW, CHAR, f"{LETTERS}\np[0] = 0;\nstrcat(p, text); @"),
    ("strcat_more", OVERFLOW, CHAR, f"{LETTERS}\nstrcpy(p, \"ab\");\nstrcat(p, text + 2); @"),
    ("strncat", OVERFLOW, CHAR, f"{LETTERS}\np[0] = 0;\nstrncat(p, text, many); @"),
    ("snprintf", OVERFLOW, CHAR, f"{LETTERS}\nsnprintf(p, many, \"%s\", text); @"),
    ("sprintf", OVERFLOW, CHAR, f"{LETTERS}\nsprintf(p, \"%s\", text); @"),
    ("sprintf_number", OVERFLOW, CHAR, "sprintf(p, \"%0*d\", (int)many - 1, 5); @"),
    ("sscanf", OVERFLOW, CHAR, f"{LETTERS}\nsscanf(text, \"%s\", p); @"),
    ("terminate", OVERFLOW, CHAR, f"{LETTERS}\nstrncpy(p, text, count - 1);\np[hide(many - 1)] = 0; @"),
    ("append", OVERFLOW, CHAR, f"{LETTERS}\nstd::string said(text);\nsaid += \"D\";\nsaid.copy(p, many); @"),
    ("wcscpy", OVERFLOW, WIDE, f"{WIDES}\nwcscpy(p, text); @"),
    ("wcsncpy", OVERFLOW, WIDE, f"{WIDES}\nwcsncpy(p, text, many); @"),
    ("wcscat", OVERFLOW, WIDE, f"{WIDES}\np[0] = 0;\nwcscat(p, text); @"),
    ("wcsncat", OVERFLOW, WIDE, f"{WIDES}\np[0] = 0;\nwcsncat(p, text, many); @"),
    ("wmemcpy", OVERFLOW, WIDE, f"{WIDES}\nwmemcpy(p, text, many); @"),
    ("wmemmove", OVERFLOW, WIDE, f"{WIDES}\nwmemmove(p, text, many); @"),
    ("wmemset", OVERFLOW, WIDE, "wmemset(p, L'D', many); @"),
    ("swprintf", OVERFLOW, WIDE, f"{WIDES}\nswprintf(p, many, L\"%ls\", text); @"),
    ("wcpcpy", OVERFLOW, WIDE, f"{WIDES}\nuse(wcpcpy(p, text)); @"),
    # Reads beyond the end.
    ("read_index", OVERFLOW, NUMBERS, "FILL\nsum = (long)p[hide(many - 1)]; @"),
    ("read_loop", OVERFLOW, NUMBERS, "FILL\n"
     "long all = 0; for (size_t k = 0; k < many; k++) all += (long)p[k]; @\nsum = all;"),
    ("read_memcpy", OVERFLOW, ANY, f"FILL\n{ROOM}\nmemcpy((void *)local, p, many * sizeof(T)); @"),
    ("read_memmove", OVERFLOW, ANY, f"FILL\n{ROOM}\nmemmove((void *)local, p, many * sizeof(T)); @"),
    ("read_memcmp", OVERFLOW, ANY, f"FILL\n{ROOM}\nsum = memcmp(p, local, many * sizeof(T)); @"),
    ("read_write", {"syscall-buffer-overflow"}, ANY,
     "FILL\nint null = open(\"/dev/null\", O_WRONLY);\nsum = write(null, p, many * sizeof(T)); @\nclose(null);"),
    ("read_fwrite", OVERFLOW | {"syscall-buffer-overflow"}, ANY,
     "FILL\nFILE *null = fopen(\"/dev/null\", \"w\");\nsum = fwrite(p, sizeof(T), many, null); @\nfclose(null);"),
    ("read_string", OVERFLOW, CHAR, "FILL\nstd::string said(p, many); @\nsum = said.size();"),
    ("strlen", OVERFLOW, CHAR, ENDS + "sum = strlen(p); @"),
    ("strchr", OVERFLOW, CHAR, ENDS + "use(strchr(p, 'z')); @"),
    ("strrchr", OVERFLOW, CHAR, ENDS + "use(strrchr(p, 'z')); @"),
    ("strstr", OVERFLOW, CHAR, ENDS + "use(strstr(p, \"zz\")); @"),
    ("strdup", OVERFLOW, CHAR, ENDS + "char *twin = strdup(p); @\nfree(twin);"),
    ("strpbrk", OVERFLOW, CHAR, ENDS + "use(strpbrk(p, \"xyz\")); @"),
    ("puts", OVERFLOW, CHAR, ENDS + "char out[500];\nsnprintf(out, 500, \"%s\", p); @"),
    ("string_of", OVERFLOW, CHAR, ENDS + "std::string said(p); @\nsum = said.size();"),
    ("strcpy_from", OVERFLOW, CHAR, ENDS + "char out[500];\nstrcpy(out, p); @\nuse(out);"),
    ("strcmp", OVERFLOW, CHAR, ENDS + f"{LETTERS}\nmemset(text, 'A', 300);\n"
     "sum = strcmp(p, text); @"),
    ("strcasecmp", OVERFLOW, CHAR, ENDS + f"{LETTERS}\nmemset(text, 'a', 300);\n"
     "sum = strcasecmp(p, text); @"),
    ("atoi", OVERFLOW, CHAR, "memset(p, '0', count);\nif (!bad) p[count - 1] = 0;\nsum = atoi(p); @"),
    ("memchr", OVERFLOW, CHAR, "FILL\nuse(memchr(p, 'z', many)); @"),
    ("wcslen", OVERFLOW, WIDE, ENDS + "sum = wcslen(p); @"),
    ("wcschr", OVERFLOW, WIDE, ENDS + "use(wcschr(p, L'z')); @"),
    ("wcscpy_from", OVERFLOW, WIDE, ENDS + "wchar_t out[500];\nwcscpy(out, p); @\nuse(out);"),
    ("wcsdup", OVERFLOW, WIDE, ENDS + "wchar_t *twin = wcsdup(p); @\nfree(twin);"),
    ("swprintf_from", OVERFLOW, WIDE, ENDS + "wchar_t out[500];\n"
     "swprintf(out, 500, L\"%ls\", p); @"),
    ("sort", OVERFLOW, {"int", "short", "int64", "double"}, "FILL\nstd::sort(p, p + many); @"),
    # Before the start.
    ("index_before", UNDERFLOW, ANY, "p[hide(bad ? -1 : 0)] = VALUE; @"),
    ("far_before", UNDERFLOW, ANY, "p[hide(bad ? -8 : 0)] = VALUE; @"),
    ("memcpy_before", UNDERFLOW, ANY, f"{ROOM}\nT *q = p - hide(bad ? 4 : 0);\nmemcpy((void *)q, local, sizeof(T)); @"),
    ("memmove_before", UNDERFLOW, ANY, f"{ROOM}\nT *q = p - hide(bad ? 8 : 0);\n"
     "memmove((void *)q, local, 2 * sizeof(T)); @"),
    ("loop_before", UNDERFLOW, ANY, "for (long k = (long)count - 1; k >= (bad ? -1 : 0); k--) p[hide(k)] = VALUE; @"),
    ("read_before", UNDERFLOW, NUMBERS, "FILL\nsum = (long)p[hide(bad ? -1 : 0)]; @"),
    ("strcpy_before", UNDERFLOW, CHAR, "char *q = p - hide(bad ? 8 : 0);\nstrcpy(q, \"abc\"); @"),
    ("strncpy_before", UNDERFLOW, CHAR, "char *q = p - hide(bad ? 3 : 0);\nstrncpy(q, \"abc\", 3); @"),
    ("wcscpy_before", UNDERFLOW, WIDE, "wchar_t *q = p - hide(bad ? 8 : 0);\nwcscpy(q, L\"ab\"); @"),
    ("memcpy_from_before", UNDERFLOW, ANY, f"{ROOM}\nT *q = p - hide(bad ? 8 : 0);\n"
     "memcpy((void *)local, q, sizeof(T)); @"),
    # After the end of its life.
    ("use_write", FREED, ANY, "if (bad) FREE; %\np[0] = VALUE; @\nuse(p);\nif (bad) return;"),
    ("use_last", FREED, ANY, "if (bad) FREE; %\np[hide(count - 1)] = VALUE; @\nuse(p);\nif (bad) return;"),
    ("use_read", FREED, NUMBERS, "FILL\nif (bad) FREE; %\nsum = (long)p[hide(0)]; @\nif (bad) return;"),
    ("use_memcpy", FREED, ANY, f"FILL\n{ROOM}\nif (bad) FREE; %\nmemcpy((void *)local, p, sizeof(T)); @\n"
     "use(p);\nif (bad) return;"),
    ("use_memset", FREED, ANY, "if (bad) FREE; %\nmemset((void *)p, 0, sizeof(T)); @\nuse(p);\nif (bad) return;"),
    ("use_again", FREED, ANY, "if (bad) FREE; %\nT *more[9]; for (T *&m : more) m = ALLOCATE;\np[0] = VALUE; @\n"
     "use(p);\n"
     "for (T *m : more) { T *p = m; FREE; }\nif (bad) return;"),
    ("use_text", FREED, CHAR, "strcpy(p, \"ab\");\nif (bad) FREE; %\nsum = strlen(p); @\nif (bad) return;"),
    ("use_printf", FREED, CHAR, "strcpy(p, \"ab\");\nif (bad) FREE; %\nchar out[50];\nsnprintf(out, 50, \"%s\", p); @\n"
     "if (bad) return;"),
    ("use_wide", FREED, WIDE, "wcscpy(p, L\"ab\");\nif (bad) FREE; %\nsum = wcslen(p); @\nif (bad) return;"),
    ("use_write_call", FREED | {"syscall-buffer-overflow"}, ANY,
     "FILL\nint null = open(\"/dev/null\", O_WRONLY);\nif (bad) FREE; %\n"
     "sum = write(null, p, sizeof(T)); @\nclose(null);\n"
     "if (bad) return;"),
    # Freed wrongly.
    ("twice", {"double-free"}, ANY, "if (bad) FREE; %\nFREE; @\nuse(&sum);\nreturn;"),
    ("twice_later", {"double-free"}, ANY, "if (bad) FREE; %\nT *other = ALLOCATE;\nFREE; @\nuse(&sum);\n"
     "{ T *p = other; FREE; }\nreturn;"),
    ("interior", {"interior-free"}, ANY, "T *start = p; p += hide(bad ? 1 : 0);\nFREE; @\nuse(&sum);\n"
     "if (bad) p = start;\nreturn;"),
    ("interior_search", {"interior-free"}, CHAR, "char *start = p; strcpy(p, \"abcd\");\n"
     "while (*p != (bad ? 'c' : 'a')) p++;\nFREE; @\nuse(&sum);\nif (bad) p = start;\nreturn;"),
    ("of_stack", {"invalid-free"}, ANY, "T local[9]; use(local); T *kept = p; if (bad) p = hide(&local[0]);\n"
     "FREE; @\nuse(&sum);\n"
     "if (bad) { p = kept; FREE; }\nreturn;"),
    ("of_static", {"invalid-free"}, ANY, "static T fixed[9]; use(fixed); T *kept = p; if (bad) p = hide(&fixed[0]);\n"
     "FREE; @\nuse(&sum);\nif (bad) { p = kept; FREE; }\nreturn;"),
    ("mismatched", {"mismatched-free"}, ANY, "if (bad) { OTHER; @\n}\nFREE;\nreturn;"),
    ("lost", {"leak-definite"}, ANY, "FILL\nif (!bad) FREE;\nreturn;"),
    ("null", {"null-dereference"}, ANY, "if (bad) { T *kept = p; p = (T *)hide(0L);\np[0] = VALUE; @\np = kept; }"),
    ("after_realloc", {"use-after-realloc"}, ANY, "T *moved = (T *)realloc(p, (count + 9) * sizeof(T)); %\n"
     "if (bad) p[0] = VALUE; @\nfree(moved);\nreturn;"),
    ("overlap", {"overlapping-copy"}, ANY, "memset((void *)p, 0, count * sizeof(T));\n"
     "T *q = p + hide(bad ? 1 : 5);\nmemcpy((void *)q, p, hide(bad ? 3 : 1) * sizeof(T)); @"),
    ("overlap_text", {"overlapping-copy"}, CHAR, "memset(p, 'a', count - 1); p[count - 1] = 0;\n"
     "char *q = p + 1;\nif (bad) strcpy(p, q); @\nelse memmove(p, q, strlen(q) + 1);"),
]

OTHERS = {"malloc": ["delete p", "delete[] p", "operator delete((void *)p)"], "new[]": ["delete p", "free((void *)p)"],
          "new": ["free((void *)p)", "operator delete[]((void *)p)"]}


class Combination:
    """A case: its source, and what is to be found."""
    stdin = b""

    def __init__(self, error, kind, allocator, flow, count, beyond, inline, choice):
        self.name = f"{error[0]}-{kind[0]}-{allocator[0]}-{flow}-{count}+{beyond}"
        self.kinds = error[1]
        self.error, self.type, self.allocator, self.flow = error, kind, allocator, flow
        self.count, self.beyond, self.inline, self.choice = count, beyond, inline, choice
        self.lines = {}

    def function(self, number):
        """The case's function, with marks."""
        free = self.allocator[3].format("p")
        body = self.error[3].replace("FREE", free).replace("VALUE", self.type[2]).replace("ALLOCATE", self.allocator[2])
        body = body.replace("FILL", "for (size_t k = 0; k < count; k++) p[k] = VALUE;".replace("VALUE", self.type[2]))
        others = OTHERS[self.allocator[1]]
        body = body.replace("OTHER", others[self.choice % len(others)])
        declarations, way = (text.replace("#", str(number)) for text in FLOWS[self.flow])
        # Functions that are alike would be made one, and objects that nobody needs not be made.
        alone = f"asm volatile(\"\" : : \"i\"({number}));\n"
        source = f"{alone}T *data = {self.allocator[2]}; ~\nasm volatile(\"\" : \"+r\"(data));\n"
        before = f"namespace n{number} {{\ntypedef {self.type[1]} T;\n{declarations}\n"
        sizes = (f"{alone}const size_t count = hide({self.count}ul);\n"
                 f"const size_t many = bad ? count + {self.beyond} : count; (void)many;\n")
        if self.inline:
            return f"{before}NOINLINE static void run(bool bad) {{\n{sizes}{source}{way}\n{body}\n{free};\n}}\n}}\n"
        return (f"{before}NOINLINE static T *make(size_t count) {{\n{source}return data;\n}}\n"
                f"NOINLINE static void work(T *p, bool bad) {{\n{sizes}{body}\n{free};\n}}\n"
                f"NOINLINE static void run(bool bad) {{\nT *data = make(hide({self.count}ul));\n{way}\n"
                "work(p, bad);\n}\n}\n")


def fits(error, kind, allocator):
    """Whether an error can be made with this type and allocator."""
    if error[2] is not None and kind[0] not in error[2]:
        return False
    if error[0] == "after_realloc":
        return allocator[1] == "malloc" and "align" not in allocator[0]
    return True


def combinations(number, seed):
    """So many cases, each error, type, allocator and way often enough. The same for the same seed."""
    chance = random.Random(seed)
    possible = [(error, kind, allocator) for error, kind, allocator in itertools.product(ERRORS, TYPES, ALLOCATORS)
                if fits(error, kind, allocator)]
    by_error = {error[0]: [one for one in possible if one[0] is error] for error in ERRORS}
    cases = []
    while len(cases) < number:
        error = ERRORS[len(cases) % len(ERRORS)]
        _, kind, allocator = chance.choice(by_error[error[0]])
        count = chance.choice([7, 8, 10, 16, 33, 50, 100])
        beyond = chance.choice([1, 1, 1, 2, 3, 8, 50])
        # What a global still points to is not lost.
        flow = chance.choice([flow for flow in FLOWS if (error[0], flow) != ("lost", "global")])
        cases.append(Combination(error, kind, allocator, flow, count, beyond, chance.random() < 0.5,
                                 chance.randrange(6)))
    return cases


def program(cases):
    """The source of a program with these cases; sets their lines."""
    lines = PRELUDE.split("\n")
    for number, case in enumerate(cases):
        case.lines = {mark: set() for mark in MARKS.values()}
        for line in case.function(number).split("\n"):
            for sign, mark in MARKS.items():
                if line.endswith(sign):
                    line = line[:-1]
                    case.lines[mark].add(len(lines) + 1)
            lines.append(line)
    runs = ", ".join(f"n{number}::run" for number in range(len(cases)))
    lines += [f"static void (*const runs[])(bool) = {{{runs}}};", "int main(int argc, char **argv)", "{",
              "if (argc != 3) return 2;", "bool bad = !strcmp(argv[2], \"bad\");", "if (!strcmp(argv[1], \"all\"))",
              "for (auto run : runs) run(false);", "else runs[atoi(argv[1])](bad);", "return 0;", "}", ""]
    return "\n".join(lines)
