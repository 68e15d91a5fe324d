/* SPDX-License-Identifier: BSD-3-Clause */
/* The program espalier: what its files share.
 *
 * A command is a row of a table (struct command): its name, its arguments
 * and options, the words for its help, and a function.  Parsing, help, the
 * list of commands and the check of the manual page all read that table.
 */

#ifndef ESPALIER_CLI_H
#define ESPALIER_CLI_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <jansson.h>

#include "catalog/catalog.h"
#include "overlay/admin.h"
#include "show.h"
#include "store/store.h"
#include "util/cleanup.h"
#include "util/host.h"
#include "util/name.h"
#include "util/progress.h"

/* Exit codes, documented in the manual page. */
enum {
  CLI_OK = 0,
  CLI_FAILED = 1,
  CLI_USAGE = 2,
  CLI_DAMAGE = 3,               /* store check, scrub: damage that is not mended */
};

/* --- options and arguments (options.c) -------------------------------- */

struct opt {
  const char *name;             /* long name, without the dashes */
  char letter;                  /* short one, or 0 */
  const char *arg;              /* what its value is called; NULL: a switch */
  const char *help;
  bool many;                    /* may be given more than once */
};

struct opt_value { const char *name, *value; };

struct args;

struct command {
  const char *name;             /* "rp create" */
  const char *synopsis;         /* arguments, then options in short */
  const char *help;             /* one line */
  const char *more;             /* for the command's own help, or NULL */
  const struct opt *options;    /* ends with a name of NULL; or NULL */
  unsigned min_args, max_args;
  enum { CMD_PASS_REST = 1,     /* what stands behind "--" is not parsed */
         CMD_NO_JSON = 2 } flags;
  int (*run) (const struct args *args);
};

struct args {
  const struct command *cmd;
  unsigned n;                   /* arguments */
  char **arg;
  unsigned nvalues;             /* options as they were given, in order */
  struct opt_value *values;
  unsigned nrest;               /* behind "--", with CMD_PASS_REST */
  char **rest;
};

#define ARGS_ANY 10000u

/* The options that every command takes, before and behind its name. */
extern const struct opt global_options[];

/* Parse ARGC arguments of CMD (ARGV[0] is not looked at).  0, or CLI_USAGE
 * after an error was printed.  args_free frees what OUT points at.
 */
extern int args_parse (const struct command *cmd, int argc, char **argv,
                       struct args *out);
extern void args_free (struct args *args);
/* Parse the options before the command's name; *INDEX gets the position of
 * the first argument that is none.
 */
extern int args_parse_global (int argc, char **argv, struct args *out,
                              int *index);

extern bool opt_has (const struct args *args, const char *name);
/* The value of an option, NULL where it was not given. */
extern const char *opt_value (const struct args *args, const char *name);
/* The I-th value of an option that may be repeated, or NULL. */
extern const char *opt_nth (const struct args *args, const char *name,
                            unsigned i);
extern unsigned opt_count (const struct args *args, const char *name);
/* A size; OUT keeps its value where the option was not given. */
extern int opt_size (const struct args *args, const char *name,
                     uint64_t *out);
/* A time in seconds: "90", "90s", "15m", "8h", "30d"; likewise. */
#define OPT_DURATION_MAX (UINT64_C (3650) * 86400)
extern int opt_duration (const struct args *args, const char *name,
                         uint32_t *out);

/* Print a usage error with the hint where to read on; CLI_USAGE. */
extern int usage (const struct command *cmd, const char *fmt, ...)
  ESP_PRINTF (2, 3);

/* --- commands (command.c) --------------------------------------------- */

extern const struct command init_commands[], root_commands[], rp_commands[],
  venue_commands[], overlay_commands[], store_commands[], scrub_commands[],
  serve_commands[], stats_commands[], hydrate_commands[],
  center_commands[], center_gc_commands[],
  transfer_commands[], fetch_commands[], key_commands[], ticket_commands[],
  client_commands[], need_commands[],
  help_commands[];

/* The command that ARGV begins with; *WORDS gets how many words its name
 * has.  NULL: an error was printed, or (*WORDS = 1) ARGV[0] is a group and
 * nothing, or an option, follows.
 */
extern const struct command *command_find (int argc, char **argv, int *words);
extern bool command_is_group (const char *word);
extern void command_help (const struct command *cmd);
extern void command_group_help (const char *group);
extern void command_overview (void);

/* --- what the whole run knows (common.c) ------------------------------- */

struct cli {
  const char *store_option;     /* --store, or NULL */
  bool json, quiet, verbose;
  bool help, version;
  struct esp_store *store;      /* cli_open's */
};
extern struct cli cli;

/* Open the store that the options name.  0, or CLI_FAILED. */
extern int cli_open (void);
extern struct esp_catalog *cli_catalog (void);
/* From _begin to _end reads fetch what is not local: the engine is started by
 * the first that misses (hydrate.c).  cli_open begins, the program's end ends.
 */
extern void cli_fetch_begin (void);
extern void cli_fetch_end (void);

/* Say what was done, unless --quiet; with --json print ROOT instead (taken
 * over, may be NULL).  CLI_OK.
 */
extern int cli_done (json_t *root, const char *fmt, ...) ESP_PRINTF (2, 3);

/* Begin work that takes long: a progress bar, and signals that end it
 * cleanly.  Ends with its scope.
 */
extern struct esp_progress *work_begin (const char *label);
ESP_DEFINE_CLEANUP (progress, struct esp_progress *, esp_progress_free)
#define CLEANUP_PROGRESS ESP_CLEANUP (progress)

/* The options --env and --app; *LIST is malloced, NULL when there are none.
 * 0, or CLI_USAGE.
 */
extern const struct opt resource_options[2];
extern int resources_parse (const struct args *args,
                            struct esp_resource **list, size_t *n);
extern void resources_free (struct esp_resource *list, size_t n);

/* The names of the needs that restore point UUID serves, an array; NULL after
 * an error was printed.  And as text, "Office and CS2" (malloced).  need.c.
 */
extern json_t *needs_served_by (const esp_uuid *uuid);
extern char *needs_text (json_t *names);

/* An overlay's name on the command line.  0, or CLI_USAGE. */
extern int export_parse_client (const struct args *args, const char *text,
                                struct esp_export *out);

/* Indexes of the open store (show.h): CLI_FAILED after an error. */
static inline int
rp_index_load (struct rp_index *index, const esp_uuid *start)
{
  return rp_index_read (index, cli.store, start) == -1 ? CLI_FAILED : CLI_OK;
}
static inline int
venue_index_load (struct venue_index *index)
{
  return venue_index_read (index, cli.store) == -1 ? CLI_FAILED : CLI_OK;
}
/* "cafe, office/1" (malloced; "" where none). */
extern char *venue_index_text (const struct venue_index *index,
                               const esp_uuid *tip);

extern void *xcalloc (size_t n, size_t size);
extern char *xstrdup (const char *s);
extern char *xasprintf (const char *fmt, ...) ESP_PRINTF (1, 2);
/* TEXT as a shell reads it, in quotes where it must be.  The caller frees it. */
extern char *shell_word (const char *text);

/* --- output (table.c, list.c) --------------------------------- */

/* A table for people: columns as wide as they need to be, the last one cut
 * at the edge of a terminal.  HEADER: "NAME|SIZE>|NOTE", '>' for columns
 * that are aligned to the right.
 */
struct table;
extern struct table *table_new (const char *header);
extern void table_row (struct table *table);
/* Append a cell to the last row; unprintable bytes are escaped. */
extern void table_cell (struct table *table, const char *text);
extern void table_cellf (struct table *table, const char *fmt, ...)
  ESP_PRINTF (2, 3);
extern void table_size (struct table *table, uint64_t bytes);
extern void table_time (struct table *table, uint64_t seconds);
/* Print and free it; EMPTY is printed when it has no rows. */
extern void table_end (struct table *table, const char *empty);

/* What a command that lists prints of N things, which are ARG's: their names
 * with --names, else an array with --json, else a table.
 */
struct listing {
  const void *arg;
  size_t n;
  char *(*name) (const void *arg, size_t i);    /* malloced */
  json_t *(*json) (const void *arg, size_t i);
  void (*rows) (struct table *table, const void *arg, size_t i);
  const char *header, *empty;   /* of the table */
};
extern const struct opt list_options[]; /* --names */
extern int list_print (const struct args *args, const struct listing *l);
extern void list_table (const struct listing *l);

/* "Label:   value" lines of an object. */
extern void field (const char *label, const char *fmt, ...)
  ESP_PRINTF (2, 3);
extern void field_size (const char *label, uint64_t bytes);
extern void field_time (const char *label, uint64_t seconds);
/* TEXT, which somebody else wrote, escaped. */
extern void field_text (const char *label, const char *text);

/* May box characters be printed? */
extern bool output_utf8 (void);

/* Print ROOT on standard output, taken over; CLI_OK or CLI_FAILED. */
extern int json_print (json_t *root);
/* What a table says of RP's own data: "1.5G", "in place", "30% of 1.5G". */
extern void table_own (struct table *table, const struct esp_rp *rp);
/* Load and print one restore point, as what a command made or changed. */
extern int rp_done (const esp_uuid *uuid, const char *what);

/* --- shared between groups of commands --------------------------------- */

/* Print the rows of overlays; SELECT (may be NULL) says which of LIST. */
extern void overlay_table (const struct esp_overlay_info_list *list,
                           const struct rp_index *rps, const char *empty);

/* The restore point REF at CENTER, by UUID, name, or the beginning of a UUID
 * (transfer.c).  0, or -1 after an error was printed.
 */
struct esp_center;
/* Is REF a venue of this store? */
extern bool is_venue (const char *ref);
/* The restore point that REF means where a venue could have stood, too. */
extern int find_rp_or_venue (const char *ref, struct esp_rp *rp);
extern int center_find_rp (struct esp_center *center, const char *ref,
                           esp_uuid *out);
/* Print what center NAME has of restore point REF: an exit status. */
extern int center_show_rp (const char *name, const char *ref);

/* Processes that hold a lock (flock) on an open file or directory, from
 * /proc/locks (holders.c).  malloced array of *N pids; NULL when there are
 * none that can be seen.
 */
struct lock_pid { long pid; char program[32]; };
extern struct lock_pid *lock_pids (int fd, size_t *n);

#endif /* ESPALIER_CLI_H */
