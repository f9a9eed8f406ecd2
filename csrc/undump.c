/* undump.c - the notation of trace.c read back into bytes: for transcripts, tests and people with a broken frame in hand. It
 * reads what a friend wrote, so it is strict and says what it did not understand, but it trusts no length.
 *
 * Values are written into the caller's buffer as they are read, content first: a list's or map's header is put in front
 * when its size is known; an array's elements are kept without their constructors in the widest form and made narrow at
 * the end, when all of them are known to fit. Once the buffer is full only upper bounds are counted. */
#include "uam_codec.h"

#include <inttypes.h>
#include <stdio.h>

#define MAX_ZEROS UAM_MAX_MESSAGE /* of payload=NB and the like */

typedef struct source {
  const char *start, *p, *end;
  const char *why; /* NULL: no error yet */
  unsigned depth;
  uam_writer w;
} source;

static void fail(source *s, const char *why) {
  if (s->why == NULL) s->why = why;
}

static bool over(const source *s) { return s->w.len > s->w.cap; }

/* ---- words ---- */

static void skip_blanks(source *s) {
  while (s->p != s->end && (*s->p == ' ' || *s->p == ',' || *s->p == '\t' || *s->p == '\n' || *s->p == '\r')) s->p++;
}

static bool next_is(source *s, char c) {
  skip_blanks(s);
  return s->p != s->end && *s->p == c;
}

static bool accept(source *s, char c) {
  if (s->why != NULL || !next_is(s, c)) return false;
  s->p++;
  return true;
}

static void expect(source *s, char c, const char *why) {
  if (!accept(s, c)) fail(s, why);
}

static bool accept_text(source *s, const char *word) {
  size_t n = strlen(word);
  skip_blanks(s);
  if (s->why != NULL || (size_t)(s->end - s->p) < n || memcmp(s->p, word, n) != 0) return false;
  s->p += n;
  return true;
}

static bool is_digit(char c) { return c >= '0' && c <= '9'; }
static bool is_letter(char c) { return c >= 'a' && c <= 'z'; }

/* A name: letters, digits, '-'; empty when something else stands there. */
static uam_span read_name(source *s) {
  skip_blanks(s);
  const char *from = s->p;
  while (s->p != s->end && (is_letter(*s->p) || (s->p != from && (is_digit(*s->p) || *s->p == '-')))) s->p++;
  return (uam_span){(const uint8_t *)from, (size_t)(s->p - from)};
}

/* The specification writes '-' where the table can only write '_'. */
static bool same(uam_span word, const char *name) {
  size_t i = 0;
  for (; i < word.len && name[i] != '\0'; i++) {
    if (word.ptr[i] != (name[i] == '_' ? '-' : (uint8_t)name[i])) return false;
  }
  return i == word.len && name[i] == '\0';
}

static unsigned hex_digit(char c) {
  if (is_digit(c)) return (unsigned)(c - '0');
  if (c >= 'a' && c <= 'f') return (unsigned)(c - 'a') + 10;
  if (c >= 'A' && c <= 'F') return (unsigned)(c - 'A') + 10;
  return 16;
}

/* Decimal or 0x hexadecimal, up to 2**64 - 1. */
static uint64_t read_natural(source *s) {
  skip_blanks(s);
  unsigned base = 10;
  if (s->end - s->p > 2 && s->p[0] == '0' && s->p[1] == 'x') {
    base = 16;
    s->p += 2;
  }
  uint64_t v = 0;
  const char *from = s->p;
  while (s->p != s->end && hex_digit(*s->p) < base) {
    unsigned digit = hex_digit(*s->p++);
    if (v > (UINT64_MAX - digit) / base) fail(s, "number too large");
    v = v * base + digit;
  }
  if (s->p == from) fail(s, "expected a number");
  return s->why == NULL ? v : 0;
}

static uint64_t read_bounded(source *s, uint64_t most) {
  uint64_t v = read_natural(s);
  if (v > most) fail(s, "number too large");
  return s->why == NULL ? v : 0;
}

static void write_zeros(source *s, uint64_t n) {
  if (s->w.len <= s->w.cap && s->w.cap - s->w.len >= n && n != 0) memset(s->w.p + s->w.len, 0, (size_t)n);
  s->w.len += (size_t)n;
}

static void write_byte(source *s, unsigned v) {
  uint8_t byte = (uint8_t)v;
  uam_write_raw(&s->w, &byte, 1);
}

/* Content of h'..' to the output. */
static void read_hex(source *s) {
  if (!accept_text(s, "h'")) fail(s, "expected h'");
  while (s->why == NULL) {
    skip_blanks(s);
    if (s->p == s->end) {
      fail(s, "h' has no end");
    } else if (*s->p == '\'') {
      s->p++;
      return;
    } else if (s->end - s->p < 2 || hex_digit(s->p[0]) > 15 || hex_digit(s->p[1]) > 15) {
      fail(s, "expected two hexadecimal digits");
    } else {
      write_byte(s, hex_digit(s->p[0]) << 4 | hex_digit(s->p[1]));
      s->p += 2;
    }
  }
}

static void read_escape(source *s) {
  char c = s->p != s->end ? *s->p++ : '\0';
  if (c == 'n') write_byte(s, '\n');
  else if (c == 'r') write_byte(s, '\r');
  else if (c == 't') write_byte(s, '\t');
  else if (c == '"' || c == '\\') write_byte(s, (unsigned)c);
  else if (c == 'x' && s->end - s->p >= 2 && hex_digit(s->p[0]) < 16 && hex_digit(s->p[1]) < 16) {
    write_byte(s, hex_digit(s->p[0]) << 4 | hex_digit(s->p[1]));
    s->p += 2;
  } else {
    fail(s, "unknown escape");
  }
}

/* Content of "..." to the output. */
static void read_quoted(source *s) {
  expect(s, '"', "expected \"");
  while (s->why == NULL) {
    char c = s->p != s->end ? *s->p++ : '\0';
    if (c == '"') return;
    if (c == '\\') read_escape(s);
    else if (c == '\0') fail(s, "\" has no end");
    else write_byte(s, (unsigned char)c);
  }
}

/* ---- headers in front of content ---- */

/* n bytes of header in front of what was written since `start`. */
static void put_in_front(source *s, size_t start, const uint8_t *header, size_t n) {
  size_t content = s->w.len - start;
  bool fits = !over(s) && s->w.cap - s->w.len >= n;
  s->w.len += n;
  if (!fits) {
    s->w.len += 8; /* an upper bound from here on */
    if (!over(s)) s->w.len = s->w.cap + 1;
    return;
  }
  memmove(s->w.p + start + n, s->w.p + start, content);
  memcpy(s->w.p + start, header, n);
}

/* code8 is 0xa0, 0xa1 or 0xa3; the content stands behind `start`. */
static void finish_var(source *s, size_t start, uint8_t code8) {
  size_t size = s->w.len - start;
  uint8_t header[5] = {code8, (uint8_t)size};
  if (size > 255) {
    header[0] = (uint8_t)(code8 + 0x10);
    store_be32(header + 1, (uint32_t)size);
  }
  put_in_front(s, start, header, size > 255 ? 5 : 2);
}

/* code8 is 0xc0, 0xc1 or 0xe0. */
static void finish_many(source *s, size_t start, uint8_t code8, uint32_t count) {
  size_t size = s->w.len - start;
  uint8_t header[9] = {code8, (uint8_t)(size + 1), (uint8_t)count};
  size_t n = 3;
  if (code8 == 0xc0 && count == 0) {
    header[0] = 0x45;
    n = 1;
  } else if (size + 1 > 255 || count > 255) {
    header[0] = (uint8_t)(code8 + 0x10);
    store_be32(header + 1, (uint32_t)(size + 4));
    store_be32(header + 5, count);
    n = 9;
  }
  put_in_front(s, start, header, n);
}

/* ---- arrays ---- */

/* Widest format code with the same element type, and the narrow one again: 0xff where there is just one. */
static uint8_t wide_code(uint8_t code) {
  switch (code) {
    case 0x41:
    case 0x42: return 0x56;
    case 0x43:
    case 0x52: return 0x70;
    case 0x44:
    case 0x53: return 0x80;
    case 0x45:
    case 0xc0: return 0xd0;
    case 0x54: return 0x71;
    case 0x55: return 0x81;
    case 0xa0:
    case 0xa1:
    case 0xa3:
    case 0xc1:
    case 0xe0: return (uint8_t)(code + 0x10);
    default: return code;
  }
}

static uint8_t narrow_code(uint8_t code) {
  switch (code) {
    case 0x70: return 0x52;
    case 0x71: return 0x54;
    case 0x80: return 0x53;
    case 0x81: return 0x55;
    case 0xb0:
    case 0xb1:
    case 0xb3:
    case 0xd0:
    case 0xd1:
    case 0xf0: return (uint8_t)(code - 0x10);
    default: return 0;
  }
}

/* Data of `item` as format `code` wants it, into `out`, which may overlap it in front. Gives its length. */
static size_t form_data(uint8_t *out, const uam_item *item, uint8_t code) {
  uint64_t bits = item->kind < UAM_KIND_UUID && item->kind != UAM_KIND_NULL ? uam_item_bits(item) : 0;
  size_t n = item->data.len;
  switch (code) {
    case 0x52:
    case 0x53:
    case 0x54:
    case 0x55:
    case 0x56: out[0] = (uint8_t)bits; return 1;
    case 0x70:
    case 0x71: store_be32(out, (uint32_t)bits); return 4;
    case 0x80:
    case 0x81: store_be64(out, bits); return 8;
    case 0xa0:
    case 0xa1:
    case 0xa3:
    case 0xb0:
    case 0xb1:
    case 0xb3:
    case 0xc0:
    case 0xc1:
    case 0xd0:
    case 0xd1:
    case 0xe0:
    case 0xf0: {
      bool many = code >> 4 >= 0xc, wide = (code & 0x10) != 0;
      size_t width = wide ? 4 : 1, head = many ? 2 * width : width, size = many ? n + width : n;
      memmove(out + head, item->data.ptr, n);
      if (wide) store_be32(out, (uint32_t)size);
      else out[0] = (uint8_t)size;
      if (many && wide) store_be32(out + 4, item->count);
      else if (many) out[1] = (uint8_t)item->count;
      return head + n;
    }
    default: memmove(out, item->data.ptr, n); return n;
  }
}

static bool fits_narrow(const uam_item *item, uint8_t narrow) {
  uint64_t bits = item->kind == UAM_KIND_NULL || item->kind >= UAM_KIND_UUID ? 0 : uam_item_bits(item);
  if (narrow == 0x52 || narrow == 0x53) return bits <= 255;
  if (narrow == 0x54 || narrow == 0x55) return bits + 128 <= 255;
  if (narrow >> 4 == 0xa) return item->data.len <= 255;
  return item->data.len + 1 <= 255 && item->count <= 255;
}

typedef struct array {
  size_t start, prefix; /* where it begins; descriptors and format code, `prefix` bytes, then the elements */
  uint32_t count;
  uint8_t code;
} array;

/* The whole value behind `at` becomes the array's next element: descriptors and code off, or to the front of the array. */
static void take_element(source *s, array *a, size_t at) {
  a->count++;
  if (over(s) || s->w.cap - s->w.len < 16) {
    s->w.len += 16;
    if (!over(s)) s->w.len = s->w.cap + 1;
    return;
  }
  uam_reader r = uam_reader_of(s->w.p + at, s->w.len - at);
  uint8_t code = uam_read_code(&r);
  for (; code == 0 && r.err == 0; code = uam_read_code(&r)) (void)uam_read_value(&r);
  size_t prefix = (size_t)(r.p - (s->w.p + at));
  uam_item item = uam_read_item(&r, code);
  if (r.err != 0 || r.p != r.end) {
    fail(s, "malformed array element");
    return;
  }
  if (a->count == 1) {
    a->prefix = prefix;
    a->code = wide_code(code);
    s->w.p[at + prefix - 1] = a->code;
    s->w.len = at + prefix + form_data(s->w.p + at + prefix, &item, a->code);
  } else if (prefix != a->prefix || wide_code(code) != a->code ||
             memcmp(s->w.p + at, s->w.p + a->start, prefix - 1) != 0) {
    fail(s, "array elements differ in type");
  } else {
    s->w.len = at + form_data(s->w.p + at, &item, a->code);
  }
}

/* Every element in the narrow form, if each of them fits. */
static void make_narrow(source *s, array *a) {
  uint8_t narrow = narrow_code(a->code);
  if (over(s) || narrow == 0 || a->count == 0) return;
  uint8_t *first = s->w.p + a->start + a->prefix, *to = first;
  uam_reader r = uam_reader_of(first, (size_t)(s->w.p + s->w.len - first));
  for (uint32_t i = 0; i < a->count; i++) {
    uam_item item = uam_read_item(&r, a->code);
    if (!fits_narrow(&item, narrow)) return;
  }
  r = uam_reader_of(first, (size_t)(s->w.p + s->w.len - first));
  for (uint32_t i = 0; i < a->count; i++) {
    uam_item item = uam_read_item(&r, a->code);
    to += form_data(to, &item, narrow);
  }
  first[-1] = narrow;
  s->w.len = (size_t)(to - s->w.p);
}

static void read_value(source *s, uint8_t expected);

/* `*N` behind the only element: N equal ones without bytes. */
static void read_repeat(source *s, array *a, size_t at) {
  a->count = (uint32_t)read_bounded(s, UAM_MAX_ITEMS);
  if (s->why != NULL || over(s)) return;
  a->prefix = s->w.len - at;
  a->code = s->w.p[s->w.len - 1];
  uam_reader r = uam_reader_of(s->w.p + at, s->w.len - at);
  uint8_t code = uam_read_code(&r);
  for (; code == 0 && r.err == 0; code = uam_read_code(&r)) (void)uam_read_value(&r);
  if (r.err != 0 || r.p != r.end || code >> 4 != 4 || a->count == 0) fail(s, "only elements without bytes repeat");
}

static void read_type(source *s) {
  uam_span name = read_name(s);
  if (same(name, "described")) {
    expect(s, '(', "expected (");
    write_byte(s, 0x00);
    read_value(s, UAM_KIND_ILLEGAL);
    read_type(s);
    expect(s, ')', "expected )");
    return;
  }
  static const uint8_t codes[UAM_KIND_DESCRIBED] = {0x40, 0x56, 0x50, 0x60, 0x52, 0x51, 0x61, 0x54,
                                                    0x73, 0x72, 0x53, 0x55, 0x83, 0x82, 0x98, 0x74,
                                                    0x84, 0x94, 0xa0, 0xa1, 0xa3, 0xc0, 0xc1, 0xe0};
  for (size_t i = 0; i < UAM_KIND_DESCRIBED; i++) {
    if (same(name, uam_kind_names[i])) {
      write_byte(s, codes[i]);
      return;
    }
  }
  fail(s, "unknown type name");
}

static void read_array(source *s) {
  array a = {.start = s->w.len};
  bool typed = !next_is(s, '[');
  if (typed) read_type(s);
  expect(s, '[', "expected [");
  while (s->why == NULL && !next_is(s, ']')) {
    size_t at = s->w.len;
    if (typed || a.count == UAM_MAX_ITEMS)
      fail(s, typed ? "an array with elements names no type" : "too many elements");
    read_value(s, UAM_KIND_ILLEGAL);
    if (s->why == NULL && a.count == 0 && accept(s, '*')) {
      read_repeat(s, &a, at);
      break;
    }
    if (s->why == NULL) take_element(s, &a, at);
  }
  expect(s, ']', "expected ]");
  if (s->why == NULL && !typed && a.count == 0) fail(s, "an empty array names its type");
  if (s->why != NULL) return;
  make_narrow(s, &a);
  finish_many(s, a.start, 0xe0, a.count);
}

/* ---- numbers ---- */

typedef struct suffix {
  char text[4];
  uint8_t kind, code, bits, small; /* code of the full width; small: of the form with one byte, 0 if there is none */
} suffix;

static const suffix suffixes[] = {{"u8", UAM_KIND_UBYTE, 0x50, 8, 0},     {"u16", UAM_KIND_USHORT, 0x60, 16, 0},
                                  {"u32", UAM_KIND_UINT, 0x70, 32, 0x52}, {"u64", UAM_KIND_ULONG, 0x80, 64, 0x53},
                                  {"i8", UAM_KIND_BYTE, 0x51, 8, 0},      {"i16", UAM_KIND_SHORT, 0x61, 16, 0},
                                  {"i32", UAM_KIND_INT, 0x71, 32, 0x54},  {"i64", UAM_KIND_LONG, 0x81, 64, 0x55}};

static void write_bits(source *s, uint8_t code, uint64_t v, unsigned bits) {
  uint8_t b[9] = {code};
  store_be64(b + 1, v << (64 - bits));
  uam_write_raw(&s->w, b, 1 + bits / 8);
}

static void write_number(source *s, const suffix *f, uint64_t v) {
  bool is_signed = f->text[0] == 'i', small = is_signed ? v + 128 <= 255 : v <= 255;
  if (v == 0 && f->small != 0 && !is_signed) write_byte(s, f->kind == UAM_KIND_UINT ? 0x43 : 0x44);
  else if (small && f->small != 0) write_bits(s, f->small, v, 8);
  else write_bits(s, f->code, v, f->bits);
}

/* Magnitude and sign as two's complement, if it is in the range of so many bits. */
static uint64_t signed_number(source *s, bool minus, uint64_t v, unsigned bits) {
  uint64_t most = ((uint64_t)1 << (bits - 1)) - (minus ? 0 : 1);
  if (v > most) fail(s, "number out of range");
  return minus ? 0 - v : v;
}

static void read_number(source *s, uint8_t expected) {
  bool minus = accept(s, '-');
  uint64_t v = read_natural(s);
  for (size_t i = 0; i < sizeof suffixes / sizeof *suffixes && s->why == NULL; i++) {
    const suffix *f = suffixes + i;
    bool bare = s->p == s->end || (*s->p != 'u' && *s->p != 'i');
    size_t n = bare ? 0 : strlen(f->text);
    if (bare ? f->kind != expected : (size_t)(s->end - s->p) < n || memcmp(s->p, f->text, n) != 0) continue;
    s->p += n;
    if (f->text[0] == 'i') v = signed_number(s, minus, v, f->bits);
    else if (minus || (f->bits < 64 && v >> f->bits != 0)) fail(s, "number out of range");
    write_number(s, f, v);
    return;
  }
  fail(s, "a number needs a suffix here, such as 5u32");
}

/* ---- values in words ---- */

static void read_uuid(source *s) {
  write_byte(s, 0x98);
  skip_blanks(s);
  for (size_t i = 0; i < 16 && s->why == NULL; i++) {
    if (s->p != s->end && *s->p == '-') s->p++;
    if (s->end - s->p < 2 || hex_digit(s->p[0]) > 15 || hex_digit(s->p[1]) > 15) {
      fail(s, "expected a UUID");
      return;
    }
    write_byte(s, hex_digit(s->p[0]) << 4 | hex_digit(s->p[1]));
    s->p += 2;
  }
}

static void read_decimal(source *s, uint8_t code, size_t width) {
  write_byte(s, code);
  size_t at = s->w.len;
  read_hex(s);
  if (s->why == NULL && s->w.len - at != width) fail(s, "wrong number of bytes for this decimal");
}

static void read_timestamp(source *s) {
  bool minus = accept(s, '-');
  uint64_t v = read_natural(s);
  write_bits(s, 0x83, signed_number(s, minus, v, 64), 64);
}

/* float(..), char(..), uuid(..) and so on: behind the opening parenthesis. */
static bool read_special(source *s, uam_span name) {
  if (same(name, "float")) write_bits(s, 0x72, read_bounded(s, UINT32_MAX), 32);
  else if (same(name, "double")) write_bits(s, 0x82, read_natural(s), 64);
  else if (same(name, "char")) write_bits(s, 0x73, read_bounded(s, UINT32_MAX), 32);
  else if (same(name, "timestamp")) read_timestamp(s);
  else if (same(name, "uuid")) read_uuid(s);
  else if (same(name, "decimal32")) read_decimal(s, 0x74, 4);
  else if (same(name, "decimal64")) read_decimal(s, 0x84, 8);
  else if (same(name, "decimal128")) read_decimal(s, 0x94, 16);
  else if (same(name, "enc")) read_hex(s);
  else if (same(name, "described")) {
    write_byte(s, 0x00);
    read_value(s, UAM_KIND_ILLEGAL);
    read_value(s, UAM_KIND_ILLEGAL);
  } else {
    return false;
  }
  return true;
}

/* The fields of a composite, in the table's order, behind the opening parenthesis. */
static void read_fields(source *s, uint32_t code) {
  size_t start = s->w.len, kept = start;
  uint32_t count = 0, kept_count = 0;
  while (s->why == NULL && !next_is(s, ')')) {
    uam_span name = read_name(s);
    uint32_t i = 0;
    while (i < uam_composite_field_count(code) && !same(name, uam_field_name(code, i))) i++;
    if (i == uam_composite_field_count(code)) fail(s, "unknown field");
    else if (i < count) fail(s, "field out of order");
    if (s->why != NULL) return;
    for (; count < i; count++) uam_write_null(&s->w);
    expect(s, '=', "expected = behind a field's name");
    size_t at = s->w.len;
    read_value(s, uam_field_kind(code, i));
    count++;
    if (!over(s) && s->w.len == at + 1 && s->w.p[at] == 0x40) continue;
    kept = s->w.len;
    kept_count = count;
  }
  s->w.len = kept;
  finish_many(s, start, 0xc0, kept_count);
}

static uint32_t code_of(uam_span name) {
  for (uint32_t code = 1; code < 0x80; code++) {
    const char *known = uam_composite_name(code) != NULL ? uam_composite_name(code) : uam_section_name(code);
    if (known != NULL && same(name, known)) return code;
  }
  return 0;
}

static void read_word(source *s) {
  const char *from = s->p;
  uam_span name = read_name(s);
  if (same(name, "null")) {
    uam_write_null(&s->w);
    return;
  }
  if (same(name, "true") || same(name, "false")) {
    uam_write_bool(&s->w, name.len == 4);
    return;
  }
  uint32_t code = code_of(name);
  expect(s, '(', "expected ( behind a name");
  if (s->why == NULL && code != 0) {
    uint8_t descriptor[] = {0x00, 0x53, (uint8_t)code};
    uam_write_raw(&s->w, descriptor, sizeof descriptor);
    if (uam_section_name(code) != NULL) read_value(s, UAM_KIND_ILLEGAL);
    else read_fields(s, code);
  } else if (s->why == NULL && !read_special(s, name)) {
    s->p = from;
    fail(s, "unknown name");
  }
  expect(s, ')', "expected )");
}

/* ---- values ---- */

static void read_list(source *s) {
  size_t start = s->w.len;
  uint32_t count = 0;
  for (; s->why == NULL && !next_is(s, ']'); count++) read_value(s, UAM_KIND_ILLEGAL);
  expect(s, ']', "expected ]");
  finish_many(s, start, 0xc0, count);
}

static void read_map(source *s) {
  size_t start = s->w.len;
  uint32_t count = 0;
  for (; s->why == NULL && !next_is(s, '}'); count += 2) {
    read_value(s, UAM_KIND_ILLEGAL);
    expect(s, '=', "expected = behind a map's key");
    read_value(s, UAM_KIND_ILLEGAL);
  }
  expect(s, '}', "expected }");
  finish_many(s, start, 0xc1, count);
}

/* `(5 bytes)`, behind its parenthesis. */
static void read_hidden(source *s) {
  size_t start = s->w.len;
  write_zeros(s, read_bounded(s, MAX_ZEROS));
  if (!accept_text(s, "bytes")) fail(s, "expected `bytes`");
  expect(s, ')', "expected )");
  finish_var(s, start, 0xa0);
}

static void read_symbol(source *s) {
  size_t start = s->w.len;
  if (s->p != s->end && *s->p == '"') {
    read_quoted(s);
  } else {
    if (s->p == s->end || !uam_is_symbol_char(*s->p)) fail(s, "expected a symbol");
    while (s->p != s->end && uam_is_symbol_char(*s->p)) write_byte(s, (unsigned char)*s->p++);
  }
  finish_var(s, start, 0xa3);
}

static void read_value(source *s, uint8_t expected) {
  skip_blanks(s);
  if (s->why != NULL) return;
  if (s->p == s->end || s->depth == UAM_MAX_DEPTH + 2) {
    fail(s, s->p == s->end ? "expected a value" : "nested too deep");
    return;
  }
  size_t start = s->w.len;
  char c = *s->p;
  s->depth++;
  if (c == '"') {
    read_quoted(s);
    finish_var(s, start, 0xa1);
  } else if (c == 'h' && s->end - s->p > 1 && s->p[1] == '\'') {
    read_hex(s);
    finish_var(s, start, 0xa0);
  } else if (is_digit(c) || c == '-') {
    read_number(s, expected);
  } else if (accept(s, ':')) {
    read_symbol(s);
  } else if (accept(s, '(')) {
    read_hidden(s);
  } else if (accept(s, '[')) {
    read_list(s);
  } else if (accept(s, '{')) {
    read_map(s);
  } else if (accept(s, '@')) {
    read_array(s);
  } else if (is_letter(c)) {
    read_word(s);
  } else {
    fail(s, "expected a value");
  }
  s->depth--;
}

/* ---- lines ---- */

static void read_protocol_header(source *s, unsigned id) {
  uam_write_raw(&s->w, "AMQP", 4);
  for (size_t i = 0; i < 4; i++) {
    if (i != 0) expect(s, '.', "expected four numbers: id.major.minor.revision");
    uint64_t v = read_bounded(s, 255);
    if (i == 0 && (id != 0 ? v != id : v == 2 || v == 3)) fail(s, "this id belongs to another name");
    write_byte(s, (unsigned)v);
  }
}

static void read_raw(source *s) {
  skip_blanks(s);
  if (s->p != s->end && is_digit(*s->p)) {
    write_zeros(s, read_bounded(s, MAX_ZEROS));
    expect(s, 'B', "expected B");
  } else {
    read_hex(s);
  }
}

static void read_payload(source *s) {
  if (!accept(s, '(')) {
    read_raw(s);
    return;
  }
  while (s->why == NULL && !next_is(s, ')')) read_value(s, UAM_KIND_ILLEGAL);
  expect(s, ')', "expected )");
}

static void read_frame(source *s) {
  uint8_t header[8] = {0};
  uint64_t type = UINT64_MAX, channel = 0;
  uam_write_raw(&s->w, header, sizeof header);
  if (accept_text(s, "type=")) type = read_bounded(s, 255);
  if (accept_text(s, "ch=")) channel = read_bounded(s, 65535);
  if (accept_text(s, "ext=")) read_hex(s);
  size_t body = s->w.len;
  if (body % 4 != 0 || body > 1020) fail(s, "ext is whole words of four bytes, at most 253 of them");
  if (type == UINT64_MAX) {
    skip_blanks(s);
    type = s->end - s->p > 5 && memcmp(s->p, "sasl-", 5) == 0 ? 1 : 0;
  }
  if (!accept_text(s, "empty")) {
    read_value(s, UAM_KIND_ILLEGAL);
    if (accept_text(s, "payload=")) read_payload(s);
  }
  store_be32(header, (uint32_t)s->w.len);
  header[4] = (uint8_t)(body / 4);
  header[5] = (uint8_t)type;
  store_be16(header + 6, (uint16_t)channel);
  if (s->w.cap >= sizeof header) memcpy(s->w.p, header, sizeof header);
}

/* When the text is not understood, `buf` has (as far as it goes) a sentence that says why, and where. */
int64_t uam_undump(const char *text, size_t n, uint8_t *buf, size_t cap) {
  static const char nothing[] = "";
  if (n == 0) text = nothing;
  source s = {.start = text, .p = text, .end = text + n, .w = {buf, 0, cap}};
  if (accept_text(&s, "AMQP ")) read_protocol_header(&s, 0);
  else if (accept_text(&s, "TLS ")) read_protocol_header(&s, 2);
  else if (accept_text(&s, "SASL ")) read_protocol_header(&s, 3);
  else if (accept_text(&s, "raw ")) read_raw(&s);
  else read_frame(&s);
  skip_blanks(&s);
  if (s.p != s.end) fail(&s, "unexpected text behind the frame");
  if (s.why == NULL) return (int64_t)s.w.len;
  if (cap != 0) (void)snprintf((char *)buf, cap, "%s, at character %lu", s.why, (unsigned long)(s.p - s.start));
  return UAM_ERR_ARG;
}
