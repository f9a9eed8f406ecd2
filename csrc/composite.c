/* composite.c - composites (performatives, SASL frames, termini, delivery states, errors) to and from their structs: one loop
 * that decodes and one that encodes, both led by the table that performatives.def makes. Called by every layer for its own
 * frames; decoded spans point into the caller's bytes. Transfer, disposition and flow pass here once per message, so the
 * usual encodings of uint, boolean and binary are handled in line. */
#include <stdarg.h>
#include <stdio.h>

#include "uam_codec.h"

enum field_type { BOOL, UBYTE, USHORT, UINT, ULONG, TIMESTAMP, STRING, SYMBOL, BINARY, RAW };
enum { BIT_OPTIONAL = 0, BIT_REQUIRED = 1 };

typedef struct field {
  const char *name;
  uint16_t offset;
  uint8_t type;
} field;

typedef struct composite {
  const char *name;
  uint32_t code;
  uint16_t first, count; /* its fields in `fields` */
  uint16_t size;         /* of its struct */
  uint32_t required;     /* bits as in `set` */
} composite;

static const field fields[] = {
#define UAM_COMPOSITE(n, code)
#define UAM_FIELD(n, f, T, need) {#f, (uint16_t)offsetof(uam_p_##n, f), T},
#define UAM_END(n)
#include "performatives.def"
#undef UAM_COMPOSITE
#undef UAM_FIELD
#undef UAM_END
};

/* Where each composite's fields begin in `fields`: its first field's number, running on from the one before. */
enum {
#define UAM_COMPOSITE(n, code) FIRST_##n, BEFORE_##n = FIRST_##n - 1,
#define UAM_FIELD(n, f, T, need) AT_##n##_##f,
#define UAM_END(n)
#include "performatives.def"
#undef UAM_COMPOSITE
#undef UAM_FIELD
#undef UAM_END
  FIELDS
};

static const composite composites[] = {
/* clang-format off: halves of a declaration */
#define UAM_COMPOSITE(n, code) \
  {                            \
    #n, code, (uint16_t)FIRST_##n, UAM_COUNT_##n, (uint16_t)sizeof(uam_p_##n), 0u
#define UAM_FIELD(n, f, T, need) | ((uint32_t)BIT_##need << UAM_INDEX_##n##_##f)
#define UAM_END(n) \
  }                \
  ,
/* clang-format on */
#include "performatives.def"
#undef UAM_COMPOSITE
#undef UAM_FIELD
#undef UAM_END
};

/* 1 + the index in `composites`. */
enum {
  BEFORE_FIRST,
#define UAM_COMPOSITE(n, code) NTH_##n,
#define UAM_FIELD(n, f, T, need)
#define UAM_END(n)
#include "performatives.def"
#undef UAM_COMPOSITE
#undef UAM_FIELD
#undef UAM_END
  MAX_CODE = 0x7f
};
static const uint8_t by_code[MAX_CODE + 1] = {
#define UAM_COMPOSITE(n, code) [code] = NTH_##n,
#define UAM_FIELD(n, f, T, need)
#define UAM_END(n)
#include "performatives.def"
#undef UAM_COMPOSITE
#undef UAM_FIELD
#undef UAM_END
};

static const composite *find(uint32_t code) {
  return code <= MAX_CODE && by_code[code] != 0 ? &composites[by_code[code] - 1] : NULL;
}

uint32_t uam_composite_field_count(uint32_t code) {
  const composite *c = find(code);
  return c != NULL ? c->count : 0;
}

const char *uam_composite_name(uint32_t code) {
  const composite *c = find(code);
  return c != NULL ? c->name : NULL;
}

const char *uam_field_name(uint32_t code, uint32_t i) {
  const composite *c = find(code);
  return c != NULL && i < c->count ? fields[c->first + i].name : NULL;
}

uint8_t uam_field_kind(uint32_t code, uint32_t i) {
  static const uint8_t kinds[] = {[BOOL] = UAM_KIND_BOOL,     [UBYTE] = UAM_KIND_UBYTE,
                                  [USHORT] = UAM_KIND_USHORT, [UINT] = UAM_KIND_UINT,
                                  [ULONG] = UAM_KIND_ULONG,   [TIMESTAMP] = UAM_KIND_TIMESTAMP,
                                  [STRING] = UAM_KIND_STRING, [SYMBOL] = UAM_KIND_SYMBOL,
                                  [BINARY] = UAM_KIND_BINARY, [RAW] = UAM_KIND_ILLEGAL};
  const composite *c = find(code);
  return c != NULL && i < c->count ? kinds[fields[c->first + i].type] : (uint8_t)UAM_KIND_ILLEGAL;
}

void uam_fault_set(uam_fault *f, const char *condition, const char *format, ...) {
  va_list args;
  va_start(args, format);
  (void)vsnprintf(f->text, sizeof f->text, format, args);
  va_end(args);
  f->condition = condition;
}

/* The specification's spelling of a name of the table. */
static const char *spelled(const char *name, char out[32]) {
  size_t i = 0;
  for (; name[i] != '\0' && i < 31; i++) out[i] = name[i] == '_' ? '-' : name[i];
  out[i] = '\0';
  return out;
}

/* ---- decode ---- */

static uint32_t read_uint(uam_reader *r) {
  size_t n = (size_t)(r->end - r->p);
  if (n >= 2 && r->p[0] == 0x52) {
    r->p += 2;
    return r->p[-1];
  }
  if (n >= 1 && r->p[0] == 0x43) {
    r->p++;
    return 0;
  }
  if (n >= 5 && r->p[0] == 0x70) {
    r->p += 5;
    return load_be32(r->p - 4);
  }
  return uam_read_uint(r);
}

static bool read_bool(uam_reader *r) {
  if (r->p != r->end && (r->p[0] == 0x41 || r->p[0] == 0x42)) return *r->p++ == 0x41;
  return uam_read_bool(r);
}

static uam_span read_binary(uam_reader *r) {
  size_t n = (size_t)(r->end - r->p);
  if (n >= 2 && r->p[0] == 0xa0 && r->p[1] <= n - 2) {
    uam_span span = {r->p + 2, r->p[1]};
    r->p += 2 + span.len;
    return span;
  }
  return uam_read_binary(r);
}

static void read_field(uam_reader *r, uint8_t type, void *to) {
  switch (type) {
    case BOOL: *(bool *)to = read_bool(r); break;
    case UBYTE: *(uint8_t *)to = uam_read_ubyte(r); break;
    case USHORT: *(uint16_t *)to = uam_read_ushort(r); break;
    case UINT: *(uint32_t *)to = read_uint(r); break;
    case ULONG: *(uint64_t *)to = uam_read_ulong(r); break;
    case TIMESTAMP: *(uint64_t *)to = uam_read_timestamp(r); break;
    case STRING: *(uam_span *)to = uam_read_string(r); break;
    case SYMBOL: *(uam_span *)to = uam_read_symbol(r); break;
    case BINARY: *(uam_span *)to = read_binary(r); break;
    default: *(uam_span *)to = uam_read_value(r); break;
  }
}

/* The fields of a list that fills its span; a short list8, as nearly every one is, without a detour. */
static uam_reader read_fields(uam_span list, uint32_t *count) {
  if (list.len > 3 && list.ptr[0] == 0xc0 && list.ptr[1] == list.len - 2 && list.ptr[2] < list.len - 2) {
    *count = list.ptr[2];
    return uam_reader_of(list.ptr + 3, list.len - 3);
  }
  uam_reader whole = uam_reader_of(list.ptr, list.len);
  uam_reader r = uam_read_list(&whole, count);
  if (whole.err == 0 && whole.p != whole.end) uam_read_fail(&r, "is followed by stray bytes");
  return r;
}

static int decode_fault(uam_fault *fault, const composite *c, const char *why) {
  char name[32];
  uam_fault_set(fault, "amqp:decode-error", "%s %s", spelled(c->name, name), why);
  return UAM_ERR_DECODE;
}

static int field_fault(uam_fault *fault, const char *condition, const composite *c, uint32_t i, const char *why) {
  char name[32], field_name[32];
  uam_fault_set(fault, condition, "%s.%s %s", spelled(c->name, name), spelled(fields[c->first + i].name, field_name),
                why);
  return UAM_ERR_DECODE;
}

static int missing_fault(uam_fault *fault, const composite *c, uint32_t set) {
  uint32_t i = 0;
  while (((c->required & ~set) >> i & 1u) == 0) i++;
  return field_fault(fault, "amqp:invalid-field", c, i, "is missing");
}

int uam_composite_decode(uint32_t code, uam_span list, void *out, uam_fault *fault) {
  const composite *c = find(code);
  if (c == NULL || list.len == 0) {
    uam_fault_set(fault, "amqp:decode-error", "composite 0x%lx %s", (unsigned long)code,
                  c == NULL ? "is unknown" : "ends too early");
    return UAM_ERR_DECODE;
  }
  memset(out, 0, c->size);
  uint32_t set = 0, count;
  uam_reader r = read_fields(list, &count);
  if (r.err != 0) return decode_fault(fault, c, r.why);
  if (count > c->count) {
    uam_fault_set(fault, "amqp:decode-error", "%s has %lu fields, at most %u", spelled(c->name, (char[32]){0}),
                  (unsigned long)count, c->count);
    return UAM_ERR_DECODE;
  }
  const field *f = fields + c->first;
  for (uint32_t i = 0; i < count; i++, f++) {
    if (r.p != r.end && *r.p == 0x40) {
      r.p++;
      continue;
    }
    read_field(&r, f->type, (uint8_t *)out + f->offset);
    if (r.err != 0) return field_fault(fault, "amqp:decode-error", c, i, r.why);
    set |= 1u << i;
  }
  if (r.p != r.end) return decode_fault(fault, c, "has a size larger than its fields");
  *(uint32_t *)out = set; /* `set` is every struct's first member */
  if ((c->required & ~set) != 0) return missing_fault(fault, c, set);
  return UAM_OK;
}

/* ---- encode ---- */

static void write_uint(uam_writer *w, uint32_t v) {
  if (w->len > w->cap || w->cap - w->len < 5) {
    uam_write_uint(w, v);
    return;
  }
  uint8_t *p = w->p + w->len;
  if (v > 255) {
    p[0] = 0x70;
    store_be32(p + 1, v);
    w->len += 5;
  } else if (v != 0) {
    p[0] = 0x52;
    p[1] = (uint8_t)v;
    w->len += 2;
  } else {
    p[0] = 0x43;
    w->len++;
  }
}

static void write_byte(uam_writer *w, uint8_t v) {
  if (w->len < w->cap) w->p[w->len] = v;
  w->len++;
}

static void write_span(uam_writer *w, uint8_t type, uam_span v) {
  if (type == STRING) uam_write_string(w, v);
  else if (type == SYMBOL) uam_write_symbol(w, v);
  else if (type == BINARY) uam_write_binary(w, v);
  else if (v.len == 0) uam_write_null(w);
  else uam_write_raw(w, v.ptr, v.len);
}

static void write_field(uam_writer *w, uint8_t type, const void *from) {
  switch (type) {
    case BOOL: write_byte(w, *(const bool *)from ? 0x41 : 0x42); break;
    case UBYTE: uam_write_ubyte(w, *(const uint8_t *)from); break;
    case USHORT: uam_write_ushort(w, *(const uint16_t *)from); break;
    case UINT: write_uint(w, *(const uint32_t *)from); break;
    case ULONG: uam_write_ulong(w, *(const uint64_t *)from); break;
    case TIMESTAMP: uam_write_timestamp(w, *(const uint64_t *)from); break;
    default: write_span(w, type, *(const uam_span *)from); break;
  }
}

/* The list8 header in front of the `start`.. bytes becomes a list32 header: six bytes more. */
static void widen(uam_writer *w, size_t start, uint8_t count) {
  size_t size = w->len - start;
  uint8_t head[9] = {0xd0};
  store_be32(head + 1, (uint32_t)(size + 4));
  store_be32(head + 5, count);
  w->len += 6;
  if (w->len > w->cap) return;
  memmove(w->p + start + 6, w->p + start, size);
  memcpy(w->p + start - 3, head, sizeof head);
}

static void encode(uam_writer *w, uint32_t code, const void *in, bool all) {
  const composite *c = find(code);
  if (c == NULL) return;
  uint32_t set = *(const uint32_t *)in & ((1u << c->count) - 1u);
  uint8_t count = all ? (uint8_t)c->count : 0;
  while (set >> count != 0) count++;
  uint8_t head[6] = {0x00, 0x53, (uint8_t)code, (uint8_t)(count == 0 ? 0x45 : 0xc0)};
  uam_write_raw(w, head, count == 0 ? 4 : 6);
  if (count == 0) return;
  size_t start = w->len;
  const field *f = fields + c->first;
  for (uint32_t i = 0; i < count; i++, f++) {
    if ((set >> i & 1u) != 0) write_field(w, f->type, (const uint8_t *)in + f->offset);
    else write_byte(w, 0x40);
  }
  size_t size = w->len - start + 1;
  if (size > 255) {
    widen(w, start, count);
  } else if (start <= w->cap) {
    w->p[start - 2] = (uint8_t)size;
    w->p[start - 1] = count;
  }
}

void uam_composite_encode(uam_writer *w, uint32_t code, const void *in) { encode(w, code, in, false); }

void uam_composite_encode_all(uam_writer *w, uint32_t code, const void *in) { encode(w, code, in, true); }
