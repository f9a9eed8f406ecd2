/* tape.c - encoded values as a flat tape of 64-bit words, and messages as a list of section offsets. This is how
 * everything that Python looks into crosses the binding: one call, one array of integers, no object per value. Nothing
 * is allocated; what is malformed is found before a word is believed.
 *
 * The tape. Each value is one word, whose low 8 bits are its kind and whose upper 56 bits (called n here, word >> 8)
 * depend on it, and then what the kind says. Several values one after another in the buffer stand one after another.
 *
 *   kind            n                            then
 *    0 null         0
 *    1 boolean      0 or 1
 *    2 ubyte        value
 *    3 ushort       value
 *    4 uint         value
 *    5 byte         value + 2**31 (never < 0)
 *    6 short        value + 2**31
 *    7 int          value + 2**31
 *    8 char         code point
 *    9 float        its 32 bits
 *   10 ulong        0                            1 word: value
 *   11 long         0                            1 word: value modulo 2**64
 *   12 timestamp    0                            1 word: milliseconds modulo 2**64
 *   13 double       0                            1 word: its 64 bits
 *   14 uuid         16                           1 word: offset of the n bytes from the start of the buffer
 *   15 decimal32    4                            1 word: offset
 *   16 decimal64    8                            1 word: offset
 *   17 decimal128   16                           1 word: offset
 *   18 binary       length                       1 word: offset
 *   19 string       length in bytes (UTF-8)      1 word: offset; the UTF-8 is *not* checked
 *   20 symbol       length                       1 word: offset
 *   21 list         number of items              the items
 *   22 map          number of pairs              key, value, key, value, ...
 *   23 array        number of elements           1 word: number of descriptors << 8 | format code of the elements
 *                                                (such as 0xa3; it tells the type of an empty array);
 *                                                the descriptors, outermost first; the elements, without descriptors
 *   24 described    0                            the descriptor, the value
 *
 * So kinds 0..9 are one word, 10..20 two words, 21..24 hold values. An array whose constructor is described has its
 * descriptors once, not per element; each element is meant to carry them all. */
#include "uam_codec.h"

/* ---- tape ---- */

typedef struct tape {
  uint64_t *words;
  size_t len, cap; /* counts on past cap */
  const uint8_t *base;
} tape;

static void put(tape *t, uint64_t word) {
  if (t->len < t->cap) t->words[t->len] = word;
  t->len++;
}

static void put_kind(tape *t, uint8_t kind, uint64_t n) { put(t, n << 8 | kind); }

static void put_value(tape *t, uam_reader *r);
static void put_data(tape *t, uam_reader *r, uint8_t code);

static void put_array(tape *t, const uam_item *array) {
  uam_reader r = uam_reader_of(array->data.ptr, array->data.len);
  put_kind(t, UAM_KIND_ARRAY, array->count);
  size_t constructor = t->len;
  put(t, 0x40);
  if (r.p == r.end) return; /* no elements, no constructor */
  uint64_t descriptors = 0;
  uint8_t code = uam_read_code(&r);
  for (; code == 0; code = uam_read_code(&r)) {
    put_value(t, &r);
    descriptors++;
  }
  if (constructor < t->cap) t->words[constructor] = descriptors << 8 | code;
  for (uint32_t i = 0; i < array->count; i++) put_data(t, &r, code);
}

static void put_items(tape *t, const uam_item *item) {
  uam_reader r = uam_reader_of(item->data.ptr, item->data.len);
  put_kind(t, item->kind, item->kind == UAM_KIND_MAP ? item->count / 2 : item->count);
  for (uint32_t i = 0; i < item->count; i++) put_value(t, &r);
}

/* What was checked by uam_read_value is not checked again. */
static void put_data(tape *t, uam_reader *r, uint8_t code) {
  uam_item item = uam_read_item(r, code);
  if (item.kind < UAM_KIND_BYTE || item.kind == UAM_KIND_CHAR || item.kind == UAM_KIND_FLOAT) {
    put_kind(t, item.kind, uam_item_bits(&item));
  } else if (item.kind <= UAM_KIND_INT) {
    put_kind(t, item.kind, uam_item_bits(&item) + ((uint64_t)1 << 31));
  } else if (item.kind <= UAM_KIND_DOUBLE) {
    put_kind(t, item.kind, 0);
    put(t, uam_item_bits(&item));
  } else if (item.kind <= UAM_KIND_SYMBOL) {
    put_kind(t, item.kind, item.data.len);
    put(t, (uint64_t)(item.data.ptr - t->base));
  } else if (item.kind <= UAM_KIND_MAP) {
    put_items(t, &item);
  } else if (item.kind == UAM_KIND_ARRAY) {
    put_array(t, &item);
  } else {
    put_kind(t, item.kind, 0);
    put_value(t, r);
    put_value(t, r);
  }
}

static void put_value(tape *t, uam_reader *r) {
  uint8_t code = uam_read_code(r);
  put_data(t, r, code);
}

int64_t uam_tape(const uint8_t *buf, size_t n, uint64_t *words, size_t cap) {
  if (n == 0) return 0;
  tape t = {words, 0, cap, buf};
  uam_reader r = uam_reader_of(buf, n);
  while (r.p != r.end) {
    uam_span value = uam_read_value(&r);
    if (r.err != 0) return UAM_ERR_DECODE;
    uam_reader checked = uam_reader_of(value.ptr, value.len);
    put_value(&t, &checked);
    if (t.len > 2 * (n + UAM_MAX_ITEMS)) return UAM_ERR_DECODE; /* many values, all of elements without bytes */
  }
  return (int64_t)t.len;
}

/* ---- sections (§3.2) ---- */

int64_t uam_sections(const uint8_t *buf, size_t n, uint64_t *out, size_t cap) {
  if (n == 0) return 0;
  size_t words = 0;
  uam_reader r = uam_reader_of(buf, n);
  while (r.p != r.end) {
    const uint8_t *section = r.p;
    uint64_t code = uam_read_descriptor(&r);
    uam_span value = uam_read_value(&r);
    if (r.err != 0) return UAM_ERR_DECODE;
    uint64_t row[4] = {code, (uint64_t)(value.ptr - buf), value.len, (uint64_t)(section - buf)};
    for (size_t i = 0; i < 4; i++, words++) {
      if (words < cap) out[words] = row[i];
    }
  }
  return (int64_t)words;
}

/* ---- whether a message can be read ---- */

#define KIND(k) ((uint32_t)1 << UAM_KIND_##k)
static const uint32_t IS_BOOL = KIND(BOOL), IS_LIST = KIND(LIST), IS_MAP = KIND(MAP), IS_BINARY = KIND(BINARY);
static const uint32_t IS_INT = KIND(UBYTE) | KIND(USHORT) | KIND(UINT) | KIND(ULONG) | KIND(BYTE) | KIND(SHORT) |
                               KIND(INT) | KIND(LONG) | KIND(TIMESTAMP);
/* What reads as bytes, and what may be a key or an id. Senders choose among these more freely than the standard has it. */
static const uint32_t IS_BYTES =
    KIND(BINARY) | KIND(STRING) | KIND(SYMBOL) | KIND(DECIMAL32) | KIND(DECIMAL64) | KIND(DECIMAL128);
static const uint32_t IS_SCALAR = ~(KIND(LIST) | KIND(MAP) | KIND(ARRAY));

/* The kind of an encoded value that was checked, without its descriptors. */
static uint32_t kind_of(uam_span value) {
  uam_reader r = uam_reader_of(value.ptr, value.len);
  uint8_t code = uam_read_code(&r);
  for (; code == 0; code = uam_read_code(&r)) (void)uam_read_value(&r);
  return (uint32_t)1 << uam_kind_of(code);
}

/* The fields of a list are null, or of the kinds at their place. Further ones are passed by. */
static bool fields_are(uam_span list, const uint32_t *kinds, size_t fields) {
  uam_reader r = uam_reader_of(list.ptr, list.len);
  uint32_t count;
  uam_reader in = uam_read_list(&r, &count);
  for (size_t i = 0; i < count && i < fields; i++) {
    if ((kind_of(uam_read_value(&in)) & (kinds[i] | KIND(NULL))) == 0) return false;
  }
  return true;
}

static bool keys_are_scalar(uam_span map) {
  uam_reader r = uam_reader_of(map.ptr, map.len);
  uam_item item = uam_read_item(&r, uam_read_code(&r));
  uam_reader in = uam_reader_of(item.data.ptr, item.data.len);
  while (in.p != in.end) {
    if ((kind_of(uam_read_value(&in)) & IS_SCALAR) == 0) return false;
    (void)uam_read_value(&in);
  }
  return true;
}

/* Whether `value` is what a section of that code holds; null is an empty one. */
static bool section_is(uint64_t code, uam_span value) {
  const uint32_t header[] = {IS_BOOL, IS_INT, IS_INT, IS_BOOL, IS_INT};
  const uint32_t properties[] = {IS_SCALAR, IS_BYTES, IS_SCALAR, IS_BYTES, IS_SCALAR, IS_SCALAR, IS_BYTES,
                                 IS_BYTES,  IS_INT,   IS_INT,    IS_BYTES, IS_INT,    IS_BYTES};
  uint8_t first = uam_kind_of(value.ptr[0]);
  if (first == UAM_KIND_NULL) return true;
  uint32_t kind = (uint32_t)1 << first;
  switch (code) {
    case 0x70: return kind == IS_LIST && fields_are(value, header, sizeof header / sizeof *header);
    case 0x73: return kind == IS_LIST && fields_are(value, properties, sizeof properties / sizeof *properties);
    case 0x71:
    case 0x72:
    case 0x74:
    case 0x78: return kind == IS_MAP && keys_are_scalar(value);
    case 0x75: return kind == IS_BINARY;
    case 0x76: return kind == IS_LIST;
    default: return code == 0x77;
  }
}

int uam_message_check(const uint8_t *buf, size_t n) {
  uint32_t seen = 0;
  const uint32_t body = 1u << 5 | 1u << 6 | 1u << 7, many = 1u << 5 | 1u << 6;
  if (n == 0) return 0;
  uam_reader r = uam_reader_of(buf, n);
  while (r.p != r.end) {
    uint64_t code = uam_read_descriptor(&r);
    uam_span value = uam_read_value(&r);
    if (r.err != 0 || code < 0x70 || code > 0x78 || !section_is(code, value)) return UAM_ERR_DECODE;
    uint32_t bit = 1u << (code - 0x70);
    if ((seen & bit & ~many) != 0 || ((bit & body) != 0 && (seen & body & ~bit) != 0)) return UAM_ERR_DECODE;
    seen |= bit;
  }
  return 0;
}
