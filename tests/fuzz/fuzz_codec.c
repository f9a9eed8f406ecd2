/* fuzz_codec.c - any bytes to everything that reads bytes: values, tapes, sections, composites, dumps. Besides memory safety:
 * what one accepts the others accept, a composite decoded and encoded decodes to the same, and a text read back
 * gives the same text. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "plain_main.h"
#include "uam_codec.h"

#define MUST(condition) ((condition) ? (void)0 : broken(#condition))

static void broken(const char *what) {
  fprintf(stderr, "does not hold: %s\n", what);
  abort();
}

static void fuzz_values(const uint8_t *data, size_t n) {
  static uint64_t words[1 << 14];
  uam_reader r = uam_reader_of(data, n);
  size_t values = 0;
  for (; r.p != r.end && r.err == 0; values++) {
    const uint8_t *from = r.p;
    uam_span value = uam_read_value(&r);
    MUST(r.err != 0 || (value.ptr == from && value.len == (size_t)(r.p - from) && value.len != 0));
  }
  int64_t count = uam_tape(data, n, words, sizeof words / sizeof *words);
  MUST(count == UAM_ERR_DECODE ? r.err != 0 || values > 1 : r.err == 0 && count >= (int64_t)values);
  MUST(count <= 4 * (int64_t)(n + UAM_MAX_ITEMS));
  MUST(uam_tape(data, n, NULL, 0) == count);
}

static void fuzz_sections(const uint8_t *data, size_t n) {
  uint64_t rows[64];
  int readable = uam_message_check(data, n);
  int64_t count = uam_sections(data, n, rows, 64);
  MUST(count == UAM_ERR_DECODE || (count >= 0 && count % 4 == 0));
  MUST(readable == UAM_ERR_DECODE || (readable == 0 && count >= 0));
  for (int64_t i = 0; i < count && i < 64; i += 4) {
    MUST(rows[i + 3] < rows[i + 1] && rows[i + 1] + rows[i + 2] <= n && rows[i + 2] != 0);
  }
}

static void fuzz_composites(const uint8_t *data, size_t n) {
  static uint8_t again[1 << 17];
  for (uint32_t code = 0x10; code <= 0x73; code++) {
    uam_any first, second;
    uam_fault fault = {0};
    int result = uam_composite_decode(code, (uam_span){data, n}, &first, &fault);
    MUST((result == UAM_OK) == (fault.condition == NULL));
    if (result != UAM_OK) continue;
    uam_writer w = {again, 0, sizeof again};
    uam_composite_encode(&w, code, &first);
    MUST(w.len <= sizeof again && w.len <= n + 3);
    MUST(uam_composite_decode(code, (uam_span){again + 3, w.len - 3}, &second, &fault) == UAM_OK);
    uam_writer counting = {NULL, 0, 0};
    uam_composite_encode(&counting, code, &second);
    MUST(counting.len == w.len);
  }
}

static void fuzz_text(const uint8_t *data, size_t n) {
  static char text[1 << 19], again[1 << 19];
  static uint8_t frame[1 << 17];
  size_t used, used_again;
  int64_t plain = uam_dump(data, n, 0, text, sizeof text, &used);
  MUST(plain >= 0 && used <= n && (plain == 0) == (used == 0));
  int64_t len = uam_dump(data, n, 1, text, sizeof text, &used_again);
  MUST(used == used_again);
  if (used == 0 || len > (int64_t)sizeof text) return;
  int64_t size = uam_undump(text, (size_t)len, frame, sizeof frame);
  MUST(size >= 0);
  if (size > (int64_t)sizeof frame) return;
  MUST(uam_undump(text, (size_t)len, NULL, 0) >= size);
  int64_t len_again = uam_dump(frame, (size_t)size, 1, again, sizeof again, &used);
  MUST(used == (size_t)size && len_again == len && memcmp(text, again, (size_t)len) == 0);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t n) {
  if (n > 4096) return 0;
  fuzz_values(data, n);
  fuzz_sections(data, n);
  fuzz_composites(data, n);
  fuzz_text(data, n);
  return 0;
}
