/* Preloaded into a node: its clock is as many seconds ahead as HPO_RAY_TEST_CLOCK says. */
#define _GNU_SOURCE
#include <dlfcn.h>
#include <stdlib.h>
#include <time.h>

int clock_gettime(clockid_t id, struct timespec *now) {
  static int (*real)(clockid_t, struct timespec *);
  if (!real) real = (int (*)(clockid_t, struct timespec *))dlsym(RTLD_NEXT, "clock_gettime");
  int code = real(id, now);
  const char *ahead = getenv("HPO_RAY_TEST_CLOCK");
  if (!code && ahead && id == CLOCK_REALTIME) now->tv_sec += atol(ahead);
  return code;
}
