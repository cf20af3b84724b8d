/* manual.c - the man page, out of the same tables as the help: man/s3dlio-cli.1 is what `s3dlio-cli --help=man` prints. */
#include <string.h>

#include "cli/cli.h"

/* Text for roff: a line that begins with a dot or quote is no request, a backslash is one, a dash is a dash. */
static void put(FILE *f, const char *s)
{
    bool line_begins = true;

    for (; *s; s++) {
        if (line_begins && (*s == '.' || *s == '\'')) fputs("\\&", f);
        if (*s == '\\') fputs("\\e", f);
        else if (*s == '-') fputs("\\-", f);
        else if (*s == '`') fputs("\\(ga", f);
        else if (*s == '^') fputs("\\(ha", f);
        else if (*s == '~') fputs("\\(ti", f);
        else fputc(*s, f);
        line_begins = *s == '\n';
    }
}

static void option(FILE *f, const struct opt *o)
{
    fputs(".TP\n\\fB", f);
    if (o->letter) fprintf(f, "\\-%c\\fR, \\fB", o->letter);
    fputs("\\-\\-", f);
    put(f, o->name);
    fputs("\\fR", f);
    if (o->arg) {
        fputs(" \\fI", f);
        put(f, o->arg);
        fputs("\\fR", f);
    }
    fputs("\n", f);
    put(f, o->help);
    fputs(".\n", f);
}

static void command(FILE *f, const struct command *c)
{
    fputs(".SS \"", f);
    put(f, c->name);
    if (c->alias) fputs(", ", f);
    if (c->alias) put(f, c->alias);
    fputs("\"\n.B ", f);
    put(f, c->name);
    fprintf(f, "\n%s", c->opts && c->opts->name ? "[\\fIOPTION\\fR]...\n" : "");
    if (*c->args) put(f, c->args);
    if (*c->args) fputs("\n", f);
    fputs(".PP\n", f);
    put(f, c->summary);
    fputs(".\n", f);
    if (c->details) put(f, c->details);
    for (const struct opt *o = c->opts; o && o->name; o++) option(f, o);
}

static const char introduction[] =
    ".SH DESCRIPTION\n"
    ".B s3dlio\\-cli\n"
    "works with objects through\n"
    ".BR s3dlio\\-proxy (8),\n"
    "or any other server that speaks S3, and asks the proxy about itself.\n"
    "Objects are named s3://BUCKET/KEY; a key stands for itself, nothing in it is encoded.\n"
    "Options may stand anywhere behind the command; those of every command before it, too.\n"
    ".PP\n"
    "What people or programs read goes to standard output, progress and errors to standard error.\n"
    "Failed requests are tried again, with growing pauses, where that can help.\n"
    "Interrupted by SIGINT or SIGTERM it ends at once; what was whole stays, no half file is left.\n"
    ".SH COMMANDS\n";
static const char closing[] =
    ".SH ENVIRONMENT\n"
    ".TP\n.BR S3DLIO_PROXY_URL \", \" AWS_ENDPOINT_URL\nWhere the proxy is, in this order, unless \\-\\-endpoint\\-url says it.\n"
    ".TP\n.BR AWS_ACCESS_KEY_ID \", \" AWS_SECRET_ACCESS_KEY \", \" AWS_SESSION_TOKEN \", \" AWS_PROFILE\n"
    "Credentials; also the profile files. Without any, requests are not signed, which the proxy does not ask for.\n"
    ".TP\n.BR AWS_REGION \", \" AWS_DEFAULT_REGION\nThe region to sign for.\n"
    ".TP\n.B AWS_CA_BUNDLE\nCertificates to trust.\n"
    ".SH \"EXIT STATUS\"\n"
    ".TP\n.B 0\nDone.\n"
    ".TP\n.B 1\nIt, or some of it, could not be done; lines on standard error say what and why.\n"
    ".TP\n.B 2\nWrong usage; nothing was done.\n"
    ".TP\n.B 3\nWhat was named does not exist, or nothing matched.\n"
    ".TP\n.B 130\nInterrupted.\n"
    ".SH EXAMPLES\n"
    ".EX\n"
    "s3dlio\\-cli ls \\-r s3://bucket/train/ \\-p '\\e.tar$'\n"
    "s3dlio\\-cli warm \\-r s3://bucket/train/ \\-\\-pin\n"
    "s3dlio\\-cli cached s3://bucket/train/\n"
    "s3dlio\\-cli mark \"epoch 1\"\n"
    "s3dlio\\-cli rm \\-rn s3://bucket/old\n"
    ".EE\n"
    ".SH \"SEE ALSO\"\n"
    ".BR s3dlio\\-proxy (8)\n";

void cli_help_man(FILE *f)
{
    fputs(".\\\" Printed by s3dlio-cli --help=man; change src/cli, not this.\n"
          ".TH S3DLIO-CLI 1 \"\" \"s3dlio-proxy\" \"User Commands\"\n"
          ".SH NAME\ns3dlio\\-cli \\- objects through s3dlio\\-proxy, and the proxy itself, from the command line\n"
          ".SH SYNOPSIS\n"
          ".B s3dlio\\-cli\n[\\fIOPTION\\fR]... \\fICOMMAND\\fR [\\fIOPTION\\fR]... [\\fIARGUMENT\\fR]...\n"
          ".br\n.B s3dlio\\-cli\n\\fICOMMAND\\fR \\fB\\-\\-help\\fR | \\fB\\-\\-version\\fR | \\fB\\-\\-help\\fR\n",
          f);
    fputs(introduction, f);
    for (const struct command *const *c = cli_commands; *c; c++) command(f, *c);
    fputs(".SH OPTIONS\nThose of every command.\n", f);
    for (const struct opt *o = cli_global_opts; o->name; o++) option(f, o);
    fputs(closing, f);
}
