/* SPDX-License-Identifier: BSD-3-Clause */
/* Faults of mapped files as errors.
 *
 * Each thread has one pointer to the place where its guarded read began;
 * the handler of SIGBUS jumps there.  The handler runs with SA_NODEFER and
 * an empty mask and sigsetjmp saves no mask, so a guarded copy costs no
 * system call: some nanoseconds over memcpy.  The pointer is in the static
 * TLS block (initial-exec), since the handler must not allocate.
 *
 * A SIGBUS that is not ours goes to the handler that was there before us;
 * where there was none, the default action comes back and the instruction
 * faults again, so that the core shows the right place.
 */

#include <config.h>

#include <errno.h>
#include <pthread.h>
#include <setjmp.h>
#include <signal.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <stdint.h>
#include <string.h>

#include "util/guard.h"

/* x86-64 gives a process 128 TiB: half of it is left to everything else. */
#define GUARD_BUDGET (UINT64_C (64) << 40)

static __thread sigjmp_buf *volatile guarded
  __attribute__ ((tls_model ("initial-exec")));

static pthread_once_t once = PTHREAD_ONCE_INIT;
static int install_errno;               /* written once, read behind once */
static struct sigaction previous;       /* likewise */

static atomic_uint_fast64_t reserved;   /* bytes of address space */

/* Raised by an access of this thread, not sent by somebody? */
static bool
is_fault (const siginfo_t *info)
{
  if (info->si_code <= 0)
    return false;
#ifdef BUS_MCEERR_AO
  if (info->si_code == BUS_MCEERR_AO)
    return false;
#endif
  return true;
}

static void
hand_on (int sig, siginfo_t *info, void *context)
{
  static const struct sigaction dfl = { .sa_handler = SIG_DFL };

  if (previous.sa_flags & SA_SIGINFO) {
    previous.sa_sigaction (sig, info, context);
    return;
  }
  if (previous.sa_handler == SIG_IGN && !is_fault (info))
    return;
  if (previous.sa_handler != SIG_DFL && previous.sa_handler != SIG_IGN) {
    previous.sa_handler (sig);
    return;
  }
  sigaction (sig, &dfl, NULL);          /* cannot fail for SIGBUS */
  if (!is_fault (info))
    raise (sig);
}

static void
on_sigbus (int sig, siginfo_t *info, void *context)
{
  sigjmp_buf *to = guarded;

  if (to && is_fault (info))
    siglongjmp (*to, 1);
  hand_on (sig, info, context);
}

static void
install (void)
{
  struct sigaction sa = { .sa_sigaction = on_sigbus,
                          .sa_flags = SA_SIGINFO | SA_NODEFER };

  sigemptyset (&sa.sa_mask);
  /* First what is there: a SIGBUS may come before sigaction returns. */
  if (sigaction (SIGBUS, NULL, &previous) < 0
      || sigaction (SIGBUS, &sa, NULL) < 0)
    install_errno = errno;
}

int
esp_guard_init (void)
{
  pthread_once (&once, install);
  if (install_errno) {
    errno = install_errno;
    return -1;
  }
  return 0;
}

/* The fences keep the compiler from moving the access out of the guard. */
static inline void
guard_set (sigjmp_buf *to)
{
  atomic_signal_fence (memory_order_seq_cst);
  guarded = to;
  atomic_signal_fence (memory_order_seq_cst);
}

int
esp_guard_copy (void *dst, const void *src, size_t n)
{
  sigjmp_buf here;

  if (sigsetjmp (here, 0)) {
    guard_set (NULL);
    errno = EIO;
    return -1;
  }
  guard_set (&here);
  memcpy (dst, src, n);
  guard_set (NULL);
  return 0;
}

int
esp_guard_call (int (*fn) (void *arg), void *arg)
{
  sigjmp_buf here;

  if (sigsetjmp (here, 0)) {
    guard_set (NULL);
    errno = EIO;
    return -1;
  }
  guard_set (&here);
  int r = fn (arg);
  guard_set (NULL);
  return r;
}

int
esp_guard_reserve (size_t n)
{
  uint_fast64_t now = atomic_load (&reserved);

  do {
    if (n > GUARD_BUDGET - now) {
      errno = ENOMEM;
      return -1;
    }
  } while (!atomic_compare_exchange_weak (&reserved, &now, now + n));
  return 0;
}

void
esp_guard_release (size_t n)
{
  atomic_fetch_sub (&reserved, n);
}
