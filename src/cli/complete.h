/* complete.h - what could stand next on a command line: for the shells' completions. */
#ifndef S3P_CLI_COMPLETE_H
#define S3P_CLI_COMPLETE_H

#include "cli/cli.h"

/* words: the command line from the program's name to the word under the cursor, which is the last, whole as far as it is typed
 * and without quotes. Prints candidates, one on a line, some with a tab and a description; those that end with '/' or '=' want
 * no space behind. The last line is ":files", ":dirs" or ":none": what names of local files could stand there, too. Never says
 * that something is wrong. */
void complete_words(struct cli *cli, int n, char **words);

#endif
