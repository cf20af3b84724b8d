/* cmd_completion.c - the shells' completion scripts. They hold no lists: they ask this program what could come next (see
 * complete.h), so they are never older than it. */
#include <stdlib.h>
#include <string.h>

#include "cli/commands.h"
#include "cli/complete.h"

/* bash gives words cut at ':' and '=' and with their quotes: they are put together again as they stood on the line, and of a
 * candidate that much is left out as readline will keep. */
static const char bash_script[] =
    "# bash completion for " CLI_NAME "\n"
    "_s3dlio_cli() {\n"
    "    local rest=$COMP_LINE i w line typed kept directive=:none words=() quote=\n"
    "    for ((i = 0; i <= COMP_CWORD; i++)); do\n"
    "        w=${COMP_WORDS[i]}\n"
    "        if ((i == 0)) || [[ $rest == [[:space:]]* || -z $rest ]]; then\n"
    "            words+=(\"$w\")\n"
    "        else\n"
    "            words[${#words[@]}-1]+=$w\n"
    "        fi\n"
    "        rest=${rest#\"${rest%%[![:space:]]*}\"}\n"
    "        rest=${rest#\"$w\"}\n"
    "    done\n"
    "    typed=${words[${#words[@]}-1]}\n"
    "    [[ $typed == [\\'\\\"]* ]] && quote=${typed:0:1}\n"
    "    kept=${typed%\"${typed##*[:=]}\"}\n"
    "    [[ -n $quote ]] && kept=\n"
    "    for i in \"${!words[@]}\"; do\n"
    "        w=${words[i]}\n"
    "        case $w in\n"
    "        [\\'\\\"]*) w=${w#?} w=${w%[\\'\\\"]} ;;\n"
    "        *) w=${w//\\\\/} ;;\n"
    "        esac\n"
    "        words[i]=$w\n"
    "    done\n"
    "    typed=${words[${#words[@]}-1]}\n"
    "    COMPREPLY=()\n"
    "    while IFS= read -r line; do\n"
    "        if [[ $line == :* ]]; then directive=$line; continue; fi\n"
    "        line=${line%%$'\\t'*}\n"
    "        if [[ -n $quote ]]; then\n"
    "            [[ $line == *[\\'\\\"\\\\\\$\\`]* ]] && continue\n"
    "        else\n"
    "            printf -v line %q \"$line\"\n"
    "        fi\n"
    "        [[ $line == *[/=] ]] && compopt -o nospace 2>/dev/null\n"
    "        COMPREPLY+=(\"${line#\"$kept\"}\")\n"
    "    done < <(\"${words[0]:-" CLI_NAME "}\" completion words -- \"${words[@]}\" 2>/dev/null)\n"
    "    case $directive in\n"
    "    :files) compopt -o filenames 2>/dev/null; while IFS= read -r line; do COMPREPLY+=(\"$line\"); done < <(compgen -f -- \"$typed\") ;;\n"
    "    :dirs) compopt -o filenames 2>/dev/null; while IFS= read -r line; do COMPREPLY+=(\"$line\"); done < <(compgen -d -- \"$typed\") ;;\n"
    "    esac\n"
    "}\n"
    "complete -F _s3dlio_cli " CLI_NAME "\n";

static const char zsh_script[] =
    "#compdef " CLI_NAME "\n"
    "_s3dlio_cli() {\n"
    "    local line candidate directive=:none\n"
    "    local -a open open_shown closed closed_shown\n"
    "    for line in \"${(@f)$(" CLI_NAME " completion words -- \"${(@Q)words[1,CURRENT]}\" 2>/dev/null)}\"; do\n"
    "        candidate=${line%%$'\\t'*}\n"
    "        case $candidate in\n"
    "        :*) directive=$candidate ;;\n"
    "        '') ;;\n"
    "        *[/=]) open+=(\"$candidate\") open_shown+=(\"${line/$'\\t'/  -- }\") ;;\n"
    "        *) closed+=(\"$candidate\") closed_shown+=(\"${line/$'\\t'/  -- }\") ;;\n"
    "        esac\n"
    "    done\n"
    "    (($#open)) && compadd -S '' -d open_shown -a open\n"
    "    (($#closed)) && compadd -d closed_shown -a closed\n"
    "    case $directive in\n"
    "    :files) _files ;;\n"
    "    :dirs) _files -/ ;;\n"
    "    esac\n"
    "}\n"
    "if [[ $funcstack[1] == _" CLI_NAME " ]]; then _s3dlio_cli \"$@\"; else compdef _s3dlio_cli " CLI_NAME "; fi\n";

static const char fish_script[] =
    "# fish completion for " CLI_NAME "\n"
    "function __s3dlio_cli_complete\n"
    "    set -l typed (commandline -ct)\n"
    "    for line in (" CLI_NAME " completion words -- (commandline -opc) \"$typed\" 2>/dev/null)\n"
    "        switch $line\n"
    "            case ':files'\n"
    "                __fish_complete_path $typed\n"
    "            case ':dirs'\n"
    "                __fish_complete_directories $typed\n"
    "            case ':*'\n"
    "            case '*'\n"
    "                echo $line\n"
    "        end\n"
    "    end\n"
    "end\n"
    "complete -c " CLI_NAME " -f -a '(__s3dlio_cli_complete)'\n";

static int run_completion(struct cli *cli, const void *opts, int nargs, char **args)
{
    static const struct {
        const char *shell, *script;
    } known[] = {{"bash", bash_script}, {"zsh", zsh_script}, {"fish", fish_script}};

    (void)opts;
    if (strcmp(args[0], "words") == 0 && nargs > 2) {
        complete_words(cli, nargs - 1, args + 1);
        return EXIT_OK;
    }
    for (size_t i = 0; nargs == 1 && i < ARRAY_LEN(known); i++) {
        if (strcmp(args[0], known[i].shell) != 0) continue;
        fputs(known[i].script, stdout);
        return EXIT_OK;
    }
    cli_error("completion: expected bash, zsh or fish");
    return EXIT_USAGE;
}

const struct command command_completion = {
    .name = "completion",
    .args = "bash|zsh|fish",
    .summary = "Print a shell's completion script",
    .details = "It is installed where the shells look for it; by hand: source <(" CLI_NAME " completion bash). It completes commands,\n"
               "options, local files, and buckets and keys as the proxy lists them. The script asks `completion words -- WORD...`.\n",
    .min_args = 1,
    .max_args = -1,
    .offline = true,
    .run = run_completion,
};
