/* check.h - counting checks for the test programs of the engine: each is one main() that ends with `return done(name)`. */
#ifndef CHECK_H
#define CHECK_H

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static unsigned long check_count, check_failures;

static inline void check_note(int ok, const char *file, int line, const char *text) {
  check_count++;
  if (ok) return;
  check_failures++;
  fprintf(stderr, "%s:%d: failed: %s\n", file, line, text);
}

#define CHECK(condition) check_note((condition) ? 1 : 0, __FILE__, __LINE__, #condition)
#define FAIL(...)                                   \
  do {                                              \
    check_note(0, __FILE__, __LINE__, "see below"); \
    fprintf(stderr, "  ");                          \
    fprintf(stderr, __VA_ARGS__);                   \
    fprintf(stderr, "\n");                          \
  } while (0)

static inline int done(const char *name) {
  printf("%s: %lu checks", name, check_count);
  if (check_failures != 0) printf(", %lu failed", check_failures);
  printf("\n");
  return check_failures != 0 || check_count == 0;
}

#endif
