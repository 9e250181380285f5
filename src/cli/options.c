// SPDX-License-Identifier: BSD-2-Clause
// Option tables: parsing and help.
#include <errno.h>
#include <getopt.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "cli/cli.h"

#define OPTIONS_MAX 64
#define HELP_COLUMN 28
#define HELP_WIDTH 80

static int argument_of(const struct cli_option *option)
{
    if (!option->value)
        return no_argument;
    return *option->value == '[' ? optional_argument : required_argument;
}

static const struct cli_option *find_letter(const struct cli_command *command, int letter)
{
    const struct cli_option *option = command->options;
    while (option->letter != letter)
        option++;
    return option;
}

int cli_parse(const struct cli_command *command, int argc, char **argv, void *options,
              struct error *err)
{
    struct option table[OPTIONS_MAX + 2] = {0};
    char letters[2 * OPTIONS_MAX + 4];
    int count = 0;
    size_t used = (size_t)sprintf(letters, "%s", command->becomes_program ? "+:h" : ":h");
    for (const struct cli_option *o = command->options; o && o->name && count < OPTIONS_MAX; o++) {
        table[count++] = (struct option){.name = o->name, .has_arg = argument_of(o)};
        if (o->letter)
            used += (size_t)sprintf(letters + used, "%c%s", o->letter, o->value ? ":" : "");
    }
    table[count] = (struct option){.name = "help", .val = 'h'};

    opterr = 0;
    optind = 0;  // from the start, in whatever state an earlier parsing ended
    for (;;) {
        int index = -1;
        int c = getopt_long(argc, argv, letters, table, &index);
        if (c == -1)
            return optind;
        if (c == 'h') {
            cli_print_help(command);
            return argc + 1;
        }
        if (c == ':')
            return error_set(err, -EINVAL, "option \"%s\" needs a value", argv[optind - 1]);
        if (c == '?' || !command->options)
            return error_set(err, -EINVAL, "option \"%s\" is not known", argv[optind - 1]);
        const struct cli_option *o = c ? find_letter(command, c) : &command->options[index];
        const char *value = optarg ? optarg : "";
        int rc = o->set ? o->set(options, o->name, value, err)
                        : o->parse((char *)options + o->offset, value, err);
        if (rc < 0) {
            error_prefix(err, "--%s \"%s\"", o->name, value);
            return -EINVAL;
        }
    }
}

// In lines that begin where the cursor is, at `column`.
static void print_words(const char *text, int column)
{
    int at = column;
    while (*text) {
        int length = (int)strcspn(text, " ");
        if (at > column && at + 1 + length > HELP_WIDTH) {
            printf("\n%*s", column, "");
            at = column;
        }
        at += printf("%s%.*s", at > column ? " " : "", length, text);
        text += length + (text[length] == ' ');
    }
    putchar('\n');
}

static void print_option(char letter, const char *name, const char *value, const char *help)
{
    char left[96], short_form[6] = "";
    if (letter)
        snprintf(short_form, sizeof(short_form), ", -%c", letter);
    int width = snprintf(left, sizeof(left), "  --%s%s%s%s", name, short_form,
                         value && *value != '[' ? " " : "", value ? value : "");
    printf("%s", left);
    if (width >= HELP_COLUMN)
        printf("\n%*s", HELP_COLUMN, "");
    else
        printf("%*s", HELP_COLUMN - width, "");
    print_words(help, HELP_COLUMN);
}

void cli_print_help(const struct cli_command *command)
{
    print_words(command->usage, printf("Usage: strake %s ", command->name));
    printf("\n%s.\n", command->summary);
    if (command->options) {
        printf("\nOptions:\n");
        for (const struct cli_option *o = command->options; o->name; o++)
            print_option(o->letter, o->name, o->value, o->help);
        print_option(0, "help", NULL, "show this");
    }
    if (command->details) {
        putchar('\n');
        print_words(command->details, 0);
    }
}

int cli_failed(const struct error *err)
{
    fprintf(stderr, "strake: %s\n", err->message);
    return CLI_EXIT_FAILED;
}

int cli_misused(const struct cli_command *command, const struct error *err)
{
    fprintf(stderr, "strake: %s: %s (see: strake help %s)\n", command->name, err->message,
            command->name);
    return CLI_EXIT_USAGE;
}

// ---- Values -------------------------------------------------------------------------------------

int cli_parse_flag(void *target, const char *value, struct error *err)
{
    (void)value;
    (void)err;
    *(bool *)target = true;
    return 0;
}

int cli_parse_string(void *target, const char *value, struct error *err)
{
    if (!*value)
        return error_set(err, -EINVAL, "the value is empty");
    *(const char **)target = value;
    return 0;
}

int cli_parse_unsigned(void *target, const char *value, struct error *err)
{
    return parse_unsigned(target, value, err);
}

int cli_parse_bytes(void *target, const char *value, struct error *err)
{
    return parse_bytes(target, value, err);
}

int cli_parse_log_level(void *target, const char *value, struct error *err)
{
    enum log_level level;
    (void)target;
    int rc = log_parse_level(&level, value, err);
    if (rc == 0)
        log_set_level(level);
    return rc;
}
