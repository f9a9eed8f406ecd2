/* fuzz_undump.c - any text to the reader of the notation, with room enough, exact room, and none. What it reads and what
 * is a whole frame is dumped without harm. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "plain_main.h"
#include "uam.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t n) {
  static uint8_t bytes[1 << 16];
  static char text[1 << 18];
  if (n > 4096) return 0;
  int64_t size = uam_undump((const char *)data, n, bytes, sizeof bytes);
  int64_t bound = uam_undump((const char *)data, n, NULL, 0);
  if (size >= 0 && bound < size) abort();
  if (size < 0 || bound > 1 << 20) return 0;
  uint8_t *exact = malloc((size_t)bound + 1);
  if (exact == NULL) return 0;
  int64_t again = uam_undump((const char *)data, n, exact, (size_t)bound);
  if (again > bound || again < 0) abort();
  size_t used;
  if (again > 0) (void)uam_dump(exact, (size_t)again, 1, text, sizeof text, &used);
  free(exact);
  return 0;
}
