/* uam_codec.h - spans, the AMQP type codec and performatives: what every layer of the engine stands on. Internal. */
#ifndef UAM_CODEC_H
#define UAM_CODEC_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>

#include "limits.h"
#include "uam.h"

/* Bytes of somebody else's. */
typedef struct uam_span {
  const uint8_t *ptr;
  size_t len;
} uam_span;

static inline uint16_t load_be16(const uint8_t *p) { return (uint16_t)((unsigned)p[0] << 8 | p[1]); }
static inline uint32_t load_be32(const uint8_t *p) {
  return (uint32_t)p[0] << 24 | (uint32_t)p[1] << 16 | (uint32_t)p[2] << 8 | p[3];
}
static inline uint64_t load_be64(const uint8_t *p) { return (uint64_t)load_be32(p) << 32 | load_be32(p + 4); }
static inline void store_be16(uint8_t *p, uint16_t v) {
  p[0] = (uint8_t)(v >> 8);
  p[1] = (uint8_t)v;
}
static inline void store_be32(uint8_t *p, uint32_t v) {
  p[0] = (uint8_t)(v >> 24);
  p[1] = (uint8_t)(v >> 16);
  p[2] = (uint8_t)(v >> 8);
  p[3] = (uint8_t)v;
}
static inline void store_be64(uint8_t *p, uint64_t v) {
  store_be32(p, (uint32_t)(v >> 32));
  store_be32(p + 4, (uint32_t)v);
}

/* ---- memory: buf.c -------------------------------------------------------------------------------------------- */
void *uam_mem_alloc(const uam_mem *m, size_t n);            /* zeroed; NULL when short */
void *uam_mem_realloc(const uam_mem *m, void *p, size_t n); /* n > 0; NULL when short, p stays valid */
void uam_mem_free(const uam_mem *m, void *p);
extern const uam_mem uam_mem_default;

/* A byte buffer: bytes head..tail are held, the rest is room. */
typedef struct uam_buf {
  uint8_t *data;
  size_t head, tail, cap;
} uam_buf;
static inline size_t uam_buf_len(const uam_buf *b) { return b->tail - b->head; }
bool uam_buf_reserve(uam_buf *b, const uam_mem *m, size_t n); /* room for n bytes at tail; may move; false: no memory */
bool uam_buf_put(uam_buf *b, const uam_mem *m, const void *p, size_t n);
void uam_buf_consume(uam_buf *b, size_t n); /* head += n; an empty buffer starts over at 0 */
void uam_buf_free(uam_buf *b, const uam_mem *m);

/* ---- reader: codec.c ------------------------------------------------------------------------------------------- */
/* Sticky: the first failure sets err (UAM_ERR_DECODE) and why; every later read gives zeros. */
typedef struct uam_reader {
  const uint8_t *p, *end;
  int err;
  const char *why;
} uam_reader;

static inline uam_reader uam_reader_of(const uint8_t *p, size_t n) { return (uam_reader){p, p + n, 0, NULL}; }
void uam_read_fail(uam_reader *r, const char *why); /* keeps the first */
uam_span uam_read_value(uam_reader *r);             /* one whole value, constructor included, checked through */
uam_span uam_read_outline(uam_reader *r);           /* the same, but lists, maps, arrays by their size alone */
bool uam_read_null(uam_reader *r);                  /* true and past it when the next value is null */
bool uam_read_bool(uam_reader *r);
uint8_t uam_read_ubyte(uam_reader *r);
uint16_t uam_read_ushort(uam_reader *r);
uint32_t uam_read_uint(uam_reader *r);      /* 0x70, 0x52, 0x43 */
uint64_t uam_read_ulong(uam_reader *r);     /* 0x80, 0x53, 0x44 */
uint64_t uam_read_timestamp(uam_reader *r); /* 0x83, as its 64 bits */
uam_span uam_read_binary(uam_reader *r);    /* content only */
uam_span uam_read_string(uam_reader *r);
uam_span uam_read_symbol(uam_reader *r);
uam_reader uam_read_list(uam_reader *r, uint32_t *count); /* list0/8/32: a reader over the items; r is past it */
uint64_t uam_read_descriptor(uam_reader *r);              /* 0x00 + ulong (or the symbol of the spec): the code;
                                                                 0 when it is a descriptor we do not know */

/* The parts of any value: what tape.c and trace.c walk with. Kinds are those of the tape. */
enum uam_kind {
  UAM_KIND_NULL = 0,
  UAM_KIND_BOOL,
  UAM_KIND_UBYTE,
  UAM_KIND_USHORT,
  UAM_KIND_UINT,
  UAM_KIND_BYTE,
  UAM_KIND_SHORT,
  UAM_KIND_INT,
  UAM_KIND_CHAR,
  UAM_KIND_FLOAT,
  UAM_KIND_ULONG,
  UAM_KIND_LONG,
  UAM_KIND_TIMESTAMP,
  UAM_KIND_DOUBLE,
  UAM_KIND_UUID,
  UAM_KIND_DECIMAL32,
  UAM_KIND_DECIMAL64,
  UAM_KIND_DECIMAL128,
  UAM_KIND_BINARY,
  UAM_KIND_STRING,
  UAM_KIND_SYMBOL,
  UAM_KIND_LIST,
  UAM_KIND_MAP,
  UAM_KIND_ARRAY,
  UAM_KIND_DESCRIBED,
  UAM_KIND_ILLEGAL
};
typedef struct uam_item {
  uint8_t kind, code; /* code: the constructor's format code */
  uint32_t count;     /* list, map, array: items */
  uam_span data;      /* the value's bytes: fixed-width data, content, items; of an array: constructor and elements */
} uam_item;
/* The data that belongs to format code `code`. A described value (code 0) has no data: descriptor and value follow. */
uam_item uam_read_item(uam_reader *r, uint8_t code);
uint8_t uam_read_code(uam_reader *r);                      /* one byte */
uint8_t uam_kind_of(uint8_t code);                         /* UAM_KIND_ILLEGAL when there is no such format code */
extern const char *const uam_kind_names[UAM_KIND_ILLEGAL]; /* the specification's */
uint64_t uam_item_bits(const uam_item *item);              /* booleans and fixed widths: value, signed ones extended */

/* ---- writer: codec.c ------------------------------------------------------------------------------------------- */
/* Counts on past the end of the room, so a buffer too small tells how large it must be. Smallest encodings always. */
typedef struct uam_writer {
  uint8_t *p;
  size_t len, cap;
} uam_writer;

void uam_write_raw(uam_writer *w, const void *p, size_t n);
void uam_write_null(uam_writer *w);
void uam_write_bool(uam_writer *w, bool v);
void uam_write_ubyte(uam_writer *w, uint8_t v);
void uam_write_ushort(uam_writer *w, uint16_t v);
void uam_write_uint(uam_writer *w, uint32_t v);
void uam_write_ulong(uam_writer *w, uint64_t v);
void uam_write_timestamp(uam_writer *w, uint64_t v);
void uam_write_binary(uam_writer *w, uam_span v);
void uam_write_string(uam_writer *w, uam_span v);
void uam_write_symbol(uam_writer *w, uam_span v);

/* ---- composites: composite.c, performatives.def ------------------------------------------------------------------- */
/* Every composite of the specification that the engine looks into is a struct made from performatives.def:
 * `uam_p_<name>` with one member per field (bool, uint8_t, uint16_t, uint32_t, uint64_t or uam_span by type; RAW fields
 * are spans of whole encoded values, constructor included) and `uint32_t set`, whose bit i says that field i is present.
 * UAM_SET(name, field) is that bit; UAM_CODE(name) the descriptor code, UAM_COMPOSITE_open and so on. */
#define UAM_CTYPE_BOOL bool
#define UAM_CTYPE_UBYTE uint8_t
#define UAM_CTYPE_USHORT uint16_t
#define UAM_CTYPE_UINT uint32_t
#define UAM_CTYPE_ULONG uint64_t
#define UAM_CTYPE_TIMESTAMP uint64_t
#define UAM_CTYPE_STRING uam_span
#define UAM_CTYPE_SYMBOL uam_span
#define UAM_CTYPE_BINARY uam_span
#define UAM_CTYPE_RAW uam_span

/* clang-format off: halves of a declaration */
#define UAM_COMPOSITE(n, code) \
  typedef struct uam_p_##n {   \
    uint32_t set;
#define UAM_FIELD(n, f, T, need) UAM_CTYPE_##T f;
#define UAM_END(n) \
  }                \
  uam_p_##n;
/* clang-format on */
#include "performatives.def"
#undef UAM_COMPOSITE
#undef UAM_FIELD
#undef UAM_END

enum {
#define UAM_COMPOSITE(n, code) UAM_COMPOSITE_##n = code,
#define UAM_FIELD(n, f, T, need)
#define UAM_END(n)
#include "performatives.def"
#undef UAM_COMPOSITE
#undef UAM_FIELD
#undef UAM_END
  UAM_COMPOSITE_none = 0
};

enum {
#define UAM_COMPOSITE(n, code)
#define UAM_FIELD(n, f, T, need) UAM_INDEX_##n##_##f,
#define UAM_END(n) UAM_COUNT_##n, UAM_RESET_##n = -1,
#include "performatives.def"
#undef UAM_COMPOSITE
#undef UAM_FIELD
#undef UAM_END
  UAM_INDEX_none
};
#define UAM_SET(n, f) (1u << UAM_INDEX_##n##_##f)
#define UAM_HAS(v, n, f) (((v).set & UAM_SET(n, f)) != 0)

typedef union uam_any {
#define UAM_COMPOSITE(n, code) uam_p_##n n;
#define UAM_FIELD(n, f, T, need)
#define UAM_END(n)
#include "performatives.def"
#undef UAM_COMPOSITE
#undef UAM_FIELD
#undef UAM_END
} uam_any;

/* What is wrong with a composite: an AMQP condition and a sentence naming frame, field and values. */
typedef struct uam_fault {
  const char *condition; /* NULL: nothing */
  char text[160];
} uam_fault;
void uam_fault_set(uam_fault *f, const char *condition, const char *format, ...);

/* The list of composite `code` (list0, list8 or list32, whole) into *out, a struct of that composite (or uam_any).
 * Absent fields are zero with their bit clear. Fields more than the table has are an error; fewer are absent. A missing
 * REQUIRED field, a wrong type or malformed bytes set *fault (amqp:decode-error, or amqp:invalid-field for a
 * missing field) and give UAM_ERR_DECODE. */
int uam_composite_decode(uint32_t code, uam_span list, void *out, uam_fault *fault);
/* Descriptor and list of *in: fields whose bit is clear are null, trailing ones left out; smallest forms. */
void uam_composite_encode(uam_writer *w, uint32_t code, const void *in);
void uam_composite_encode_all(uam_writer *w, uint32_t code,
                              const void *in); /* absent fields at the end as nulls, too */
/* 0 when the code is not in the table. */
uint32_t uam_composite_field_count(uint32_t code);
/* The kind of the i-th field; UAM_KIND_ILLEGAL for RAW ones and past the end. */
uint8_t uam_field_kind(uint32_t code, uint32_t i);

/* ---- notation: trace.c (out), undump.c (in) ---------------------------------------------------------------------- */
bool uam_is_symbol_char(char c);             /* may stand in an unquoted symbol */
const char *uam_section_name(uint32_t code); /* of the sections that are no composites; NULL for the rest */

#endif
