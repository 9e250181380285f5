// SPDX-License-Identifier: BSD-2-Clause
// strake completion: what shells need to complete command lines, made from the tables of commands
// and options. What a value or an argument is shows in its name: FILE, PATH, DIR, NAME.
#include <ctype.h>
#include <errno.h>
#include <stdio.h>
#include <string.h>

#include "cli/cli.h"

// ---- bash ---------------------------------------------------------------------------------------

static const char bash_head[] =
    "# bash completion for strake, made by: strake completion bash\n"
    "_strake() {\n"
    "    local cur=\"${COMP_WORDS[COMP_CWORD]}\" prev=\"${COMP_WORDS[COMP_CWORD-1]}\"\n"
    "    local command=\"${COMP_WORDS[1]}\" options= files= folders= values= words= names=\n"
    "    local commands=\"";

static const char bash_middle[] = "\"\n"
                                  "    if [ \"$COMP_CWORD\" -eq 1 ]; then\n"
                                  "        COMPREPLY=($(compgen -W \"$commands\" -- \"$cur\"))\n"
                                  "        return\n"
                                  "    fi\n"
                                  "    case \"$command\" in\n";

static const char bash_tail[] =
    "    esac\n"
    "    case \" $folders \" in *\" $prev \"*) COMPREPLY=($(compgen -d -- \"$cur\")); return;; "
    "esac\n"
    "    case \" $files \" in *\" $prev \"*) COMPREPLY=($(compgen -f -- \"$cur\")); return;; esac\n"
    "    case \" $values \" in *\" $prev \"*) return;; esac\n"
    "    if [ \"${cur#-}\" != \"$cur\" ]; then\n"
    "        COMPREPLY=($(compgen -W \"$options\" -- \"$cur\"))\n"
    "    elif [ \"$COMP_CWORD\" -eq 2 ] && [ -n \"$words\" ]; then\n"
    "        COMPREPLY=($(compgen -W \"$words\" -- \"$cur\"))\n"
    "    elif [ \"$names\" = partitions ]; then\n"
    "        COMPREPLY=($(compgen -W \"$(strake list --quiet 2>/dev/null)\" -- \"$cur\"))\n"
    "    elif [ \"$names\" = versions ]; then\n"
    "        COMPREPLY=($(compgen -W \"$(strake update status --quiet 2>/dev/null)\" -- "
    "\"$cur\"))\n"
    "    elif [ \"$names\" = interceptors ]; then\n"
    "        [ \"${COMP_WORDS[2]}\" = add ] && words=\"net files mount\" ||\n"
    "            words=$(strake leverage list --quiet 2>/dev/null)\n"
    "        COMPREPLY=($(compgen -W \"$words\" -- \"$cur\"))\n"
    "    elif [ \"$names\" = commands ]; then\n"
    "        COMPREPLY=($(compgen -W \"$commands\" -- \"$cur\"))\n"
    "    elif [ \"$names\" = files ]; then\n"
    "        COMPREPLY=($(compgen -f -- \"$cur\"))\n"
    "    fi\n"
    "}\n"
    "complete -o filenames -F _strake strake\n";

// What an option's value is to be completed to.
enum kind { KIND_FLAG, KIND_FOLDER, KIND_FILE, KIND_VALUE };

static enum kind kind_of(const struct cli_option *option)
{
    if (!option->value || *option->value == '[')
        return KIND_FLAG;
    if (strcmp(option->value, "DIR") == 0)
        return KIND_FOLDER;
    if (strncmp(option->value, "FILE", 4) == 0 || strcmp(option->value, "PATH") == 0)
        return KIND_FILE;
    return KIND_VALUE;
}

static void bash_options(const struct cli_command *command, const char *variable, bool all,
                         enum kind kind)
{
    printf(" %s=\"", variable);
    for (const struct cli_option *o = command->options; o && o->name; o++)
        if (all || kind_of(o) == kind) {
            printf("--%s ", o->name);
            if (o->letter)
                printf("-%c ", o->letter);
        }
    printf("%s\"", all ? "--help" : "");
}

// What arguments are, by the command's usage.
static const char *arguments_of(const struct cli_command *command)
{
    const char *last = strrchr(command->usage, ' ');
    last = last ? last + 1 : command->usage;
    if (strncmp(last, "NAME", 4) == 0)
        return "partitions";
    if (strncmp(last, "FILE", 4) == 0 || command->becomes_program)
        return "files";
    if (strcmp(last, "[VERSION]") == 0)
        return "versions";
    if (strcmp(last, "[INTERCEPTOR]") == 0)
        return "interceptors";
    return strcmp(last, "[COMMAND]") == 0 ? "commands" : "";
}

// What the first argument may be, where the usage starts with it: "bash|zsh". Separated by spaces.
static void first_words(const struct cli_command *command, char *words, size_t capacity)
{
    size_t length = strcspn(command->usage, " ");

    snprintf(words, capacity, "%.*s",
             memchr(command->usage, '|', length) && islower(*command->usage) ? (int)length : 0,
             command->usage);
    for (char *c = words; *c; c++)
        *c = *c == '|' ? ' ' : *c;
}

static void bash_command(const struct cli_command *command)
{
    char words[128];

    first_words(command, words, sizeof(words));
    printf("    %s)", command->name);
    bash_options(command, "options", true, KIND_FLAG);
    bash_options(command, "folders", false, KIND_FOLDER);
    bash_options(command, "files", false, KIND_FILE);
    bash_options(command, "values", false, KIND_VALUE);
    printf(" words=\"%s\" names=\"%s\";;\n", words, arguments_of(command));
}

static void print_names(void)
{
    for (size_t i = 0; cli_commands[i]; i++)
        if (!cli_commands[i]->internal)
            printf("%s ", cli_commands[i]->name);
}

static void print_bash(void)
{
    fputs(bash_head, stdout);
    print_names();
    fputs(bash_middle, stdout);
    for (size_t i = 0; cli_commands[i]; i++)
        if (!cli_commands[i]->internal)
            bash_command(cli_commands[i]);
    fputs(bash_tail, stdout);
}

// ---- zsh ----------------------------------------------------------------------------------------

static const char zsh_head[] =
    "#compdef strake\n"
    "# zsh completion for strake, made by: strake completion zsh\n"
    "_strake_partitions() { compadd -- ${(f)\"$(strake list --quiet 2>/dev/null)\"} }\n"
    "_strake_interceptors() {\n"
    "    if [[ $words[2] = add ]]; then compadd net files mount\n"
    "    else compadd -- ${(f)\"$(strake leverage list --quiet 2>/dev/null)\"}; fi\n"
    "}\n"
    "_strake_versions() { compadd -- ${(f)\"$(strake update status --quiet 2>/dev/null)\"} }\n"
    "_strake() {\n"
    "    local -a commands=(\n";

static const char zsh_middle[] = "        )\n"
                                 "    if (( CURRENT == 2 )); then\n"
                                 "        _describe command commands\n"
                                 "        return\n"
                                 "    fi\n"
                                 "    local command=$words[2]\n"
                                 "    shift words; (( CURRENT-- ))\n"
                                 "    case $command in\n";

static const char zsh_tail[] = "    esac\n"
                               "}\n"
                               "_strake \"$@\"\n";

// A help text as _arguments takes it: without what has a meaning there.
static void zsh_text(const char *text)
{
    for (; *text; text++) {
        if (*text == '\'')
            fputs("'\\''", stdout);
        else if (strchr("[]:", *text))
            printf("\\%c", *text);
        else
            putchar(*text);
    }
}

// By its name, with one or two dashes before it.
static void zsh_option_as(const struct cli_option *option, const char *dashes, const char *name)
{
    static const char *const actions[] = {[KIND_FLAG] = "",
                                          [KIND_FOLDER] = ":folder:_files -/",
                                          [KIND_FILE] = ":file:_files",
                                          [KIND_VALUE] = ":value: "};
    printf(" \\\n            '*%s%s[", dashes, name);
    zsh_text(option->help);
    printf("]%s'", actions[kind_of(option)]);
}

static void zsh_option(const struct cli_option *option)
{
    const char letter[] = {option->letter, 0};

    zsh_option_as(option, "--", option->name);
    if (*letter)
        zsh_option_as(option, "-", letter);
}

static void zsh_command(const struct cli_command *command)
{
    const char *arguments = arguments_of(command);
    char words[128];

    first_words(command, words, sizeof(words));
    printf("    %s) _arguments '--help[show help]'", command->name);
    for (const struct cli_option *o = command->options; o && o->name; o++)
        zsh_option(o);
    if (*words)
        printf(" \\\n            '1:value:(%s)'", words);
    if (strcmp(arguments, "partitions") == 0)
        printf(" \\\n            '*:partition:_strake_partitions'");
    else if (strcmp(arguments, "versions") == 0)
        printf(" \\\n            '2:version:_strake_versions'");
    else if (strcmp(arguments, "interceptors") == 0)
        printf(" \\\n            '2:interceptor:_strake_interceptors'");
    else if (strcmp(arguments, "files") == 0)
        printf(" \\\n            '*:file:_files'");
    else if (strcmp(arguments, "commands") == 0)
        printf(" \\\n            '1:command:(${commands%%%%:*})'");
    puts(" ;;");
}

static void print_zsh(void)
{
    fputs(zsh_head, stdout);
    for (size_t i = 0; cli_commands[i]; i++) {
        if (cli_commands[i]->internal)
            continue;
        printf("            '%s:", cli_commands[i]->name);
        zsh_text(cli_commands[i]->summary);
        puts("'");
    }
    fputs(zsh_middle, stdout);
    for (size_t i = 0; cli_commands[i]; i++)
        if (!cli_commands[i]->internal)
            zsh_command(cli_commands[i]);
    fputs(zsh_tail, stdout);
}

static int run_completion(const struct cli_command *command, int argc, char **argv)
{
    struct error err = {0};
    int next = cli_parse(command, argc, argv, NULL, &err);
    if (next > argc)
        return CLI_EXIT_OK;
    const char *shell = next >= 0 && next + 1 == argc ? argv[next] : "";
    if (strcmp(shell, "bash") == 0)
        print_bash();
    else if (strcmp(shell, "zsh") == 0)
        print_zsh();
    else if (next >= 0)
        next = error_set(&err, -EINVAL, "the shell is to be bash or zsh");
    return next < 0 ? cli_misused(command, &err) : CLI_EXIT_OK;
}

const struct cli_command cli_completion = {
    .name = "completion",
    .usage = "bash|zsh",
    .summary = "Print what a shell needs to complete command lines",
    .run = run_completion,
};
