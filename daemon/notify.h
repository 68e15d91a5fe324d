/* SPDX-License-Identifier: BSD-3-Clause */
/* What systemd wants to know (sd_notify(3)), without libsystemd. */

#ifndef ESPALIERD_NOTIFY_H
#define ESPALIERD_NOTIFY_H

/* Send STATE ("READY=1") to $NOTIFY_SOCKET, if there is one.  Best effort. */
extern void notify (const char *state);
/* Begin and end of reading the configuration again. */
extern void notify_reloading (void);

#endif /* ESPALIERD_NOTIFY_H */
