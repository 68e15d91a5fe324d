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
 * faults again, so that the core shows the right place.  A host that sets
 * its own handler later is put behind ours by the next esp_guard_init; if
 * that one hands on to ours in turn, the second round ends the process.
 */

#include <config.h>

#include <errno.h>
#include <pthread.h>
#include <setjmp.h>
#include <signal.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include "util/cleanup.h"
#include "util/guard.h"

/* x86-64 gives a process 128 TiB: half of it is left to everything else. */
#define GUARD_BUDGET (UINT64_C (64) << 40)

/* The thread sanitizer runs every handler with all signals blocked, so there
 * the mask has to be saved (a system call) and restored by the jump.
 */
#ifdef __has_feature
#if __has_feature (thread_sanitizer)
#define SAVE_MASK 1
#endif
#endif
#ifdef __SANITIZE_THREAD__
#define SAVE_MASK 1
#endif
#ifndef SAVE_MASK
#define SAVE_MASK 0
#endif

static __thread sigjmp_buf *volatile guarded
  __attribute__ ((tls_model ("initial-exec")));

/* What was there before us.  Handlers read it at any time, so an element
 * never changes or goes once it is in the list.
 */
struct before {
  struct sigaction sa;
  struct before *next;
};
static struct before *_Atomic before;

static pthread_mutex_t install_lock = PTHREAD_MUTEX_INITIALIZER;

/* This thread is in a handler that was called by ours (or left it by a
 * jump: then its next fault without a guard ends the process).
 */
static __thread volatile sig_atomic_t handing_on
  __attribute__ ((tls_model ("initial-exec")));

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

/* Returns to let the instruction fault again. */
static void
end_process (int sig, const siginfo_t *info)
{
  static const struct sigaction dfl = { .sa_handler = SIG_DFL };

  sigaction (sig, &dfl, NULL);          /* cannot fail for SIGBUS */
  if (!is_fault (info))
    raise (sig);
}

static void
hand_on (int sig, siginfo_t *info, void *context)
{
  const struct sigaction *sa = &atomic_load (&before)->sa;

  if (handing_on || sa->sa_handler == SIG_DFL
      || (sa->sa_handler == SIG_IGN && is_fault (info))) {
    end_process (sig, info);
    return;
  }
  if (sa->sa_handler == SIG_IGN)
    return;
  handing_on = 1;
  if (sa->sa_flags & SA_SIGINFO)
    sa->sa_sigaction (sig, info, context);
  else
    sa->sa_handler (sig);
  handing_on = 0;
}

static void
on_sigbus (int sig, siginfo_t *info, void *context)
{
  sigjmp_buf *to = guarded;

  if (to && is_fault (info))
    siglongjmp (*to, 1);
  hand_on (sig, info, context);
}

static bool
is_ours (const struct sigaction *sa)
{
  return (sa->sa_flags & SA_SIGINFO) && sa->sa_sigaction == on_sigbus;
}

int
esp_guard_init (void)
{
  struct sigaction ours = { .sa_sigaction = on_sigbus,
                            .sa_flags = SA_SIGINFO | SA_NODEFER };
  struct sigaction now;

  ESP_LOCK_SCOPE (&install_lock);
  if (sigaction (SIGBUS, NULL, &now) < 0)
    return -1;
  if (is_ours (&now))
    return 0;
  /* Known before our handler can run, and kept as long as it can. */
  struct before *b = malloc (sizeof *b);
  if (!b)
    return -1;
  b->sa = now;
  b->next = atomic_load (&before);
  atomic_store (&before, b);
  sigemptyset (&ours.sa_mask);
  return sigaction (SIGBUS, &ours, NULL);
}

/* The fences keep the compiler from moving the access out of the guard. */
static inline void
guard_set (sigjmp_buf *to)
{
  atomic_signal_fence (memory_order_seq_cst);
  guarded = to;
  atomic_signal_fence (memory_order_seq_cst);
}

/* Page by page: for long copies glibc changes to `rep movsb` or to stores
 * that pass the cache by, and the bytes are on their way to a socket.  On an
 * AMD EPYC that takes 0.7 to 0.9 of the time of one memcpy.  A function of
 * its own, since a jump must not meet half-changed variables.
 */
#define COPY_BYTES 4096u

static __attribute__ ((noinline)) void
copy (uint8_t *dst, const uint8_t *src, size_t n)
{
  for (; n > COPY_BYTES; n -= COPY_BYTES) {
    memcpy (dst, src, COPY_BYTES);
    dst += COPY_BYTES;
    src += COPY_BYTES;
  }
  memcpy (dst, src, n);
}

int
esp_guard_copy (void *dst, const void *src, size_t n)
{
  sigjmp_buf here;

  if (sigsetjmp (here, SAVE_MASK)) {
    guard_set (NULL);
    errno = EIO;
    return -1;
  }
  guard_set (&here);
  copy (dst, src, n);
  guard_set (NULL);
  return 0;
}

int
esp_guard_call (int (*fn) (void *arg), void *arg)
{
  sigjmp_buf here;

  if (sigsetjmp (here, SAVE_MASK)) {
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
