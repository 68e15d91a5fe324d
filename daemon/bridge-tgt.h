/* SPDX-License-Identifier: BSD-3-Clause */
/* What tgtd is asked, as bytes: bridge-tgt.c. */

#ifndef ESPALIERD_BRIDGE_TGT_H
#define ESPALIERD_BRIDGE_TGT_H

#include <stdint.h>

enum mode {
  MODE_SYSTEM, MODE_TARGET, MODE_DEVICE, MODE_PORTAL, MODE_LLD, MODE_SESSION,
  MODE_CONNECTION, MODE_ACCOUNT,
};
enum verb { OP_NEW, OP_DELETE, OP_SHOW, OP_BIND, OP_UNBIND, OP_UPDATE };

struct tgt_header {
  uint32_t mode, op;
  char driver[64];
  uint32_t len;                 /* with the text and its NUL */
  int32_t tid;
  uint64_t session, lun;
  uint32_t cid, host, device_type, direction, pack, force;
};
_Static_assert (sizeof (struct tgt_header) == 120, "as tgtd has it on 64 bits");

/* Send H with the formatted text ("" for none), which is wiped.  0, or -1, reported
 * with WHAT.
 */
extern int tgt_ask (const char *what, struct tgt_header h, const char *fmt,
                    ...) __attribute__ ((format (printf, 3, 4)));
/* tgtd ended, and all accounts that it had. */
extern void tgt_chap_forget_all (void);

#endif /* ESPALIERD_BRIDGE_TGT_H */
