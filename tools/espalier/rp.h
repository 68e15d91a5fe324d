/* SPDX-License-Identifier: BSD-3-Clause */
/* The commands of espalier rp: rp.c makes and changes, rp-show.c shows,
 * tree.c draws, rp-table.c has their table.
 */

#ifndef ESPALIER_CLI_RP_H
#define ESPALIER_CLI_RP_H

#include "espalier.h"

extern int rp_create_run (const struct args *args);
extern int rp_rename_run (const struct args *args);
extern int rp_note_run (const struct args *args);
extern int rp_resources_run (const struct args *args);
extern int rp_delete_run (const struct args *args);
extern int rp_merge_run (const struct args *args);
extern int rp_export_run (const struct args *args);
extern int rp_diff_run (const struct args *args);
extern int rp_list_run (const struct args *args);
extern int rp_show_run (const struct args *args);
extern int rp_tree_run (const struct args *args);

#endif /* ESPALIER_CLI_RP_H */
