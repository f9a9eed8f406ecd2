/* context.c - what every layer calls of the engine object itself: memory ran out, a call of the user's is refused, bytes are
 * kept, and ids are given out. */
#include <stdarg.h>
#include <stdio.h>

#include "uam_int.h"

void uam_oom(uam_engine *e) { e->fatal = UAM_ERR_NOMEM; }

int uam_refuse(uam_engine *e, int code, const char *format, ...) {
  va_list args;
  va_start(args, format);
  vsnprintf(e->problem, sizeof e->problem, format, args);
  va_end(args);
  return code;
}

bool uam_keep(uam_engine *e, uam_buf *b, const void *p, size_t n) {
  b->head = b->tail = 0;
  bool ok = n == 0 || uam_buf_put(b, &e->mem, p, n);
  if (!ok) uam_oom(e);
  return ok;
}

uint32_t uam_next_id(uam_engine *e, size_t slot) {
  e->ids.generation = (uint16_t)(e->ids.generation == UINT16_MAX ? 1 : e->ids.generation + 1);
  return (uint32_t)e->ids.generation << 16 | (uint32_t)slot;
}
